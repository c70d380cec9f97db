//! For whom work is done: a request, a job, one message of a queue.
//!
//! Responsible for [`Scope`]: its name, when it started, when its polls began and ended, how it
//! ended, and what was noted on the way. Not responsible for http (see `layer`) and not for what a
//! scope holds (see `registry`): a holder points at its scope, never the other way round.

mod counts;
mod current;
mod name;
mod polls;
mod run;
mod runs;

pub(crate) use counts::Counters;
pub use counts::RequestCounts;
pub(crate) use current::OnUnwind;
pub(crate) use name::Name;
pub use run::Scoped;
pub(crate) use runs::inside_a_poll;

use polls::Polls;

use std::fmt;
// The counter of ids is a static, which loom's atomics cannot be.
use std::sync::atomic::AtomicU64 as StaticU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::Moment;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// Names the work that checkouts are made for, so that a report can say whom a connection serves.
///
/// The tower layer opens one for each request. Work that is no request (a job, a consumer, a task
/// that outlives its request) opens its own with [`Scope::new`] and [`Scope::run`]. A clone is the
/// same scope.
///
/// # Who ends a scope
/// - The layer ends the scope of a request when the response body ends or is dropped.
/// - A scope made by [`Scope::new`] ends with the first future given to [`Scope::run`].
/// - Every other `run`, on a clone or on [`Scope::current`], only carries the scope: it never ends it.
///
/// A connection that is still held some time after its scope ended has outlived it, and that is
/// what a report then says.
///
/// # Cost
/// One allocation for the scope, and one for a name of more than 46 bytes; a clone is one atomic increment.
///
/// # Examples
/// ```
/// use leaktrace::Scope;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let job = Scope::new("nightly invoices");
/// job.run(async {
///     let name = Scope::current().map(|scope| scope.name().to_owned());
///     assert_eq!(name.as_deref(), Some("nightly invoices"));
/// })
/// .await;
/// assert!(Scope::current().is_none());
/// # }
/// ```
#[derive(Clone)]
pub struct Scope(Arc<Inner>);

struct Inner {
    /// Never reused in this process.
    id: u64,
    name: Name,
    /// A better name, learned further in: set at most once, and only where `name` lacks a route.
    learned_name: OnceLock<Box<str>>,
    request_id: Option<Box<str>>,
    of_request: bool,
    grace: Option<Duration>,
    polls: Polls,
    /// Zero while the scope lives; then the moment of its end with the outcome in the low bits, so
    /// that no reader sees the one without the other. Written once.
    end: AtomicU64,
    /// Whoever sets this ends the scope.
    claimed: AtomicBool,
    acquire_timed_out: AtomicBool,
    told: AtomicU8,
}

/// How a scope ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Outcome {
    /// It came to its own end. For a request: the whole answer was handed over.
    Completed = 1,
    /// It was dropped before that: a client that went away, a timeout, an aborted task.
    Cancelled = 2,
    /// A panic went through one of its polls.
    Panicked = 3,
    /// The service or the response body returned an error.
    Errored = 4,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Panicked => "panicked",
            Self::Errored => "errored",
        }
    }

    fn from_bits(bits: u64) -> Option<Self> {
        [
            Self::Completed,
            Self::Cancelled,
            Self::Panicked,
            Self::Errored,
        ]
        .into_iter()
        .find(|outcome| *outcome as u64 == bits)
    }
}

/// The bits of [`Inner::end`] that hold the outcome; the moment loses 8 ns of precision to them.
const OUTCOME_BITS: u64 = 0b111;

const TOLD_SUCCESS: u8 = 1;
const TOLD_FAILURE: u8 = 2;

impl Scope {
    /// Creates a scope for work that is no request, under the name that reports will show.
    ///
    /// The name is what equal work has in common (`"nightly invoices"`), not what tells two pieces
    /// of it apart: reports group by it, and it is printed as it stands.
    ///
    /// # Examples
    /// ```
    /// let scope = leaktrace::Scope::new("consumer: order-events");
    /// assert_eq!(scope.name(), "consumer: order-events");
    /// ```
    pub fn new(name: impl Into<String>) -> Self {
        Self::open(Opening {
            name: name.into().into(),
            request_id: None,
            grace: None,
            of_request: false,
        })
    }

    /// Creates a scope that its maker ends, by [`Scope::end`].
    pub(crate) fn of_request(
        name: Name,
        request_id: Option<String>,
        grace: Option<Duration>,
    ) -> Self {
        Self::open(Opening {
            name,
            request_id,
            grace,
            of_request: true,
        })
    }

    fn open(opening: Opening) -> Self {
        static NEXT: StaticU64 = StaticU64::new(1);
        let Opening {
            name,
            request_id,
            grace,
            of_request,
        } = opening;
        Self(Arc::new(Inner {
            id: NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            name,
            learned_name: OnceLock::new(),
            request_id: request_id.map(String::into_boxed_str),
            of_request,
            grace,
            polls: Polls::new(),
            end: AtomicU64::new(0),
            claimed: AtomicBool::new(of_request),
            acquire_timed_out: AtomicBool::new(false),
            told: AtomicU8::new(0),
        }))
    }

    /// Returns the name: what was given to [`Scope::new`], or method and matched route of a request.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(leaktrace::Scope::new("nightly invoices").name(), "nightly invoices");
    /// ```
    pub fn name(&self) -> &str {
        match self.0.learned_name.get() {
            Some(name) => name,
            None => self.0.name.as_str(),
        }
    }

    /// Returns the id the request came with, made harmless; `None` for work that is no request.
    ///
    /// # Examples
    /// ```
    /// assert!(leaktrace::Scope::new("nightly invoices").request_id().is_none());
    /// ```
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    /// Whether the layer opened it, so that it ends with an answer.
    pub(crate) fn is_of_request(&self) -> bool {
        self.0.of_request
    }

    /// How long after its end a checkout may stay out; `None` leaves that to the monitor.
    pub(crate) fn grace(&self) -> Option<Duration> {
        self.0.grace
    }

    /// When and how it ended; `None` while it lives.
    pub(crate) fn ended(&self) -> Option<(Moment, Outcome)> {
        let packed = self.0.end.load(Ordering::Acquire);
        let outcome = Outcome::from_bits(packed & OUTCOME_BITS)?;
        // Rounded up: an end never seems to lie before what happened until then.
        let at = Moment::from_nanos(packed | OUTCOME_BITS)?;
        Some((at, outcome))
    }

    /// Records the end. The first one counts; returns whether this was it.
    pub(crate) fn end(&self, at: Moment, outcome: Outcome) -> bool {
        let packed = (at.as_nanos() & !OUTCOME_BITS) | outcome as u64;
        self.0
            .end
            .compare_exchange(0, packed, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Like [`Scope::end`] at this moment; reads no clock where the end is known already.
    pub(crate) fn end_now(&self, outcome: Outcome) -> bool {
        self.0.end.load(Ordering::Relaxed) == 0 && self.end(Moment::now(), outcome)
    }

    /// Since when some thread is inside a poll of this scope without a break; `None` if none is.
    pub(crate) fn in_poll_since(&self) -> Option<Moment> {
        self.0.polls.inside_since()
    }

    /// When its latest poll began; `None` before the first. What was used later than that has not
    /// been followed by a poll.
    pub(crate) fn last_polled(&self) -> Option<Moment> {
        self.0.polls.latest()
    }

    /// Notes that the pool failed this scope.
    pub(crate) fn note_acquire_timeout(&self) {
        self.0.acquire_timed_out.store(true, Ordering::Relaxed);
    }

    pub(crate) fn acquire_timed_out(&self) -> bool {
        self.0.acquire_timed_out.load(Ordering::Relaxed)
    }

    /// Notes what the caller was told. The latest word counts: trailers come after the head.
    pub(crate) fn note_answer(&self, success: bool) {
        let told = if success { TOLD_SUCCESS } else { TOLD_FAILURE };
        self.0.told.store(told, Ordering::Relaxed);
    }

    /// Whether the caller was told success; `None` while no answer was given, or for a job.
    pub(crate) fn told_success(&self) -> Option<bool> {
        match self.0.told.load(Ordering::Relaxed) {
            TOLD_SUCCESS => Some(true),
            TOLD_FAILURE => Some(false),
            _ => None,
        }
    }

    /// Whether it succeeded: it was told success, and came to its own end. `None` while that is open.
    ///
    /// A head that says 200 is no success yet: the body may panic, fail or be cut after it.
    pub(crate) fn success(&self) -> Option<bool> {
        // The end first: the last word to the caller comes before it.
        match (self.ended(), self.told_success()) {
            (None, Some(false)) => Some(false),
            (None, _) => None,
            (Some((_, outcome)), told) => Some(outcome == Outcome::Completed && told == Some(true)),
        }
    }

    /// Gives a better name to a scope whose route was not known when it was opened.
    pub(crate) fn learn_name(&self, name: &Name) {
        // A second lesson is no news: the outermost layer that knew the route taught the first.
        let _ = self.0.learned_name.set(name.as_str().into());
    }

    /// Takes the duty to end this scope; `false` if somebody has it.
    fn claim(&self) -> bool {
        !self.0.claimed.swap(true, Ordering::Relaxed)
    }
}

/// What a scope is opened with.
struct Opening {
    name: Name,
    request_id: Option<String>,
    grace: Option<Duration>,
    of_request: bool,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("request_id", &self.request_id())
            .field("ended", &self.ended().map(|(_, outcome)| outcome.as_str()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(nanos).expect("not zero")
    }

    #[test]
    fn the_first_end_counts() {
        let scope = Scope::new("job");
        assert!(scope.ended().is_none());
        assert!(scope.end(at(1_000), Outcome::Cancelled));
        assert!(!scope.end(at(2_000), Outcome::Completed));
        assert!(!scope.end_now(Outcome::Panicked));
        let (when, outcome) = scope.ended().expect("it ended");
        assert_eq!(outcome, Outcome::Cancelled);
        assert_eq!(when.as_nanos() / 8, 1_000 / 8);
    }

    #[test]
    fn every_outcome_survives_the_packing() {
        for outcome in [
            Outcome::Completed,
            Outcome::Cancelled,
            Outcome::Panicked,
            Outcome::Errored,
        ] {
            let scope = Scope::new("job");
            scope.end(at(1), outcome);
            assert_eq!(scope.ended().map(|end| end.1), Some(outcome));
        }
    }

    #[test]
    fn ids_are_never_reused() {
        let first = Scope::new("job");
        let id = first.id();
        assert_eq!(first.clone().id(), id, "a clone is the same scope");
        drop(first);
        assert_ne!(Scope::new("job").id(), id);
    }

    #[test]
    fn a_learned_name_replaces_the_first_and_stays() {
        let scope = Scope::of_request("GET (unmatched)".into(), None, None);
        scope.learn_name(&"GET /a/{id}".into());
        scope.learn_name(&"GET /b".into());
        assert_eq!(scope.name(), "GET /a/{id}");
    }

    #[test]
    fn the_latest_word_to_the_caller_counts() {
        let scope = Scope::of_request("GET /".into(), None, None);
        assert_eq!(scope.told_success(), None);
        scope.note_answer(true);
        scope.note_answer(false);
        assert_eq!(scope.told_success(), Some(false));
    }

    #[test]
    fn success_is_a_good_answer_that_was_given_to_its_end() {
        for (outcome, is_success) in [
            (Outcome::Completed, true),
            (Outcome::Cancelled, false),
            (Outcome::Panicked, false),
            (Outcome::Errored, false),
        ] {
            let scope = Scope::of_request("GET /".into(), None, None);
            scope.note_answer(true);
            assert_eq!(scope.success(), None, "its body is to come");
            scope.end(at(1), outcome);
            assert_eq!(scope.success(), Some(is_success), "{outcome:?}");
        }
        let failed = Scope::of_request("GET /".into(), None, None);
        failed.note_answer(false);
        assert_eq!(failed.success(), Some(false), "before its end");
        failed.end(at(1), Outcome::Completed);
        assert_eq!(failed.success(), Some(false));
    }

    #[test]
    fn scopes_cross_threads() {
        fn shared<T: Send + Sync + Clone + 'static>() {}
        shared::<Scope>();
    }
}
