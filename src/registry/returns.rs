//! The connections that are on their way back, and for how long they may be.
//!
//! Responsible for the limit of each return and for what is done at it: ask the server, wait, or
//! abort the task. Not responsible for how a server is asked ([`Gauges::ask`]) or for saying it.
//!
//! There is no timer per return: the watchdog looks, also when the runtime's time is paused.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::HolderId;
use super::cell::{Cell, Seen};
use super::pool::PoolRecord;
use super::slots::Slots;
use crate::clock::Moment;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// What the server says of the backend of a connection that does not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// No side connection could be had within its limit, or it broke.
    Unreachable,
    /// The server answers, but lets no side connection in: it has too many, for one.
    Refused,
    /// It is not there any more, it runs nothing, or nothing of ours runs at all.
    Idle,
    /// It runs our statement, and was told to cancel it.
    Cancelled,
    /// Which backend it is was never learned, or the server cannot be asked.
    Unknown,
}

/// Says that the side connection is open.
pub(crate) type Reached = Box<dyn FnOnce() + Send>;

/// What was done about a stuck return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Closed: the server is silent.
    ClosedUnreachable,
    /// Closed: the server has nothing of it.
    ClosedIdle,
    /// Its statement was cancelled on the server; the permit is kept until that has an effect.
    Cancelled,
    /// The permit is kept: whether something runs on the server is not known.
    Kept,
    /// Closed after all patience; its backend may run on.
    Orphaned,
}

/// A return that is stuck, and what was done about it. Each is told once per kind of deed.
pub(crate) struct Stuck {
    pub(crate) cell: Arc<Cell>,
    /// As it was before anything was done about it: the cell may be out for another one by now.
    pub(crate) seen: Seen,
    pub(crate) since: Moment,
    pub(crate) done: Done,
}

/// A question that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    at: Moment,
    /// The side connection is open: whoever let it in is not silent, only slow.
    reached: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Walking,
    /// The server is being asked.
    Asking(Asked),
    Answered(Word),
    /// Waiting for what the server does, until it is asked again.
    Kept(Moment),
    Aborted,
}

/// A way back, as its cell keeps it: all of it under the cell's lock, nothing of it allocated.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    since: Moment,
    state: State,
    /// sqlx has the connection: from here on a statement that runs may be the next borrower's.
    leaving: bool,
    /// A question was given up, and may have left a cancel behind that arrives at any time.
    doubtful: bool,
    told: Option<Done>,
}

impl Walk {
    pub(super) fn new(since: Moment) -> Self {
        Self {
            since,
            state: State::Walking,
            leaving: false,
            doubtful: false,
            told: None,
        }
    }
}

/// What is common to the returns of one pool.
pub(crate) struct Returns {
    limit: AtomicU64,
    /// When the server was last seen not to let a side connection in: those that were on their way
    /// by then need not ask.
    unreachable: Mutex<Option<Moment>>,
}

impl Default for Returns {
    fn default() -> Self {
        Self {
            limit: AtomicU64::new(nanos(Self::LIMIT)),
            unreachable: Mutex::default(),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Cell {
    /// Before sqlx gets the connection: waits while the server is being asked, so that a cancel
    /// cannot hit the next borrower. Answers whether it was asked.
    pub(crate) async fn leave(&self) -> bool {
        std::future::poll_fn(|cx| {
            self.walk.register(cx.waker());
            match &mut self.live.lock().walk {
                Some(walk) if matches!(walk.state, State::Asking(_)) => Poll::Pending,
                // Until the watchdog has taken note of it: gone before, it would never be told.
                Some(walk) if walk.state == State::Answered(Word::Cancelled) => Poll::Pending,
                // Nobody may get what a late cancel can hit. Its task sees it at its next poll.
                Some(walk) if walk.doubtful => {
                    walk.state = State::Aborted;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(walk) => {
                    walk.leaving = true;
                    Poll::Ready(walk.state != State::Walking)
                }
                None => Poll::Ready(false),
            }
        })
        .await
    }

    /// Whether the way back was given up. If not, it wakes that task when it is.
    ///
    /// There is no handle that aborts the task: keeping one would cost each return an allocation.
    pub(crate) fn is_given_up(&self, cx: &Context<'_>) -> bool {
        self.walk.register(cx.waker());
        let live = self.live.lock();
        live.walk.is_some_and(|walk| walk.state == State::Aborted)
    }

    /// The way back that is under way, with the holder that it is of.
    fn walking(&self) -> Option<(HolderId, Walk)> {
        let live = self.live.lock();
        Some((HolderId(live.id), live.walk?))
    }

    /// Changes the way back of that holder, if it is still under way.
    fn change(&self, holder: HolderId, change: impl FnOnce(&mut Walk)) {
        let mut live = self.live.lock();
        if live.id == holder.0
            && let Some(walk) = &mut live.walk
        {
            change(walk);
        }
        drop(live);
        self.walk.wake();
    }
}

impl Asked {
    fn limit(self) -> Duration {
        match self.reached {
            true => Returns::SLOW,
            false => Returns::ANSWER,
        }
    }
}

impl Returns {
    /// A peer that is silent for this long is given up.
    const LIMIT: Duration = Duration::from_secs(5);
    /// The side connection may take so long to be let in: together with the limit less than 6 s.
    const ANSWER: Duration = Duration::from_millis(900);
    /// Once let in, it may take so long to ask and to cancel. MariaDB takes 2 s for a `KILL QUERY` of a
    /// `SLEEP` that another kill has just woken: it looks 40 times, 50 ms apart, whether a mutex is
    /// free (`THD::awake_no_mutex`). After that another one is asked, which a silent server keeps out.
    const SLOW: Duration = Duration::from_secs(5);
    /// A backend that cannot be ended keeps its permit no longer than this.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// So many returns of one pool ask at the same time.
    const ASKING: usize = 2;

    pub(crate) fn set_limit(&self, limit: Duration) {
        self.limit.store(nanos(limit), Ordering::Relaxed);
    }

    pub(crate) fn limit(&self) -> Duration {
        Duration::from_nanos(self.limit.load(Ordering::Relaxed))
    }

    /// One return of the pool: acts on it if it is beyond its limit, answers what was done, and when
    /// to look again.
    fn step(
        &self,
        cell: &Arc<Cell>,
        holder: HolderId,
        walk: Walk,
        now: Moment,
        asking: &mut usize,
    ) -> (Option<Done>, Duration) {
        let limit = self.limit();
        let age = now.since(walk.since);
        let word = match walk.state {
            State::Aborted => return (None, Duration::MAX),
            State::Walking if age < limit => return (None, limit - age),
            State::Kept(until) if now < until && age < Self::PATIENCE => {
                return (None, until.since(now));
            }
            State::Walking | State::Kept(_) if self.is_unreachable(now, walk.since) => {
                // Not seen again: it would be a finding that keeps itself alive.
                cell.change(holder, |walk| walk.state = State::Aborted);
                return (Some(Done::ClosedUnreachable), Duration::MAX);
            }
            State::Walking | State::Kept(_) => {
                if *asking < Self::ASKING {
                    *asking += 1;
                    ask(cell, holder, now);
                }
                return (None, Self::ANSWER / 20);
            }
            State::Asking(asked) if now.since(asked.at) < asked.limit() => {
                return (None, Self::ANSWER / 20);
            }
            State::Asking(Asked { reached: false, .. }) => Word::Unreachable,
            State::Asking(_) if age < Self::PATIENCE => {
                cell.change(holder, |walk| walk.doubtful = true);
                ask(cell, holder, now);
                return (Some(Done::Kept), Self::ANSWER / 20);
            }
            State::Asking(_) => Word::Unknown,
            State::Answered(word) => word,
        };
        let kept = |done| {
            let until = now.after(limit.max(Self::ANSWER));
            cell.change(holder, |walk| walk.state = State::Kept(until));
            (Some(done), limit.max(Self::ANSWER))
        };
        let gone = |done| {
            cell.change(holder, |walk| walk.state = State::Aborted);
            (Some(done), Duration::MAX)
        };
        match word {
            Word::Unreachable => {
                *self.unreachable.lock() = Some(now);
                gone(Done::ClosedUnreachable)
            }
            Word::Idle => gone(Done::ClosedIdle),
            Word::Cancelled | Word::Unknown | Word::Refused if age >= Self::PATIENCE => {
                gone(Done::Orphaned)
            }
            Word::Cancelled => kept(Done::Cancelled),
            Word::Unknown | Word::Refused => kept(Done::Kept),
        }
    }

    /// Whether somebody else was not let in a moment ago, who would speak for this return too.
    fn is_unreachable(&self, now: Moment, since: Moment) -> bool {
        let at = *self.unreachable.lock();
        at.is_some_and(|at| now.since(at) < Self::ANSWER && since <= at)
    }
}

impl Slots {
    /// Looks at every return: acts on those beyond their limit, answers what is to be told, and when
    /// to look again.
    pub(crate) fn look_at_returns(&self, now: Moment) -> (Vec<Stuck>, Option<Duration>) {
        let pool: &PoolRecord = self.record();
        let mut stuck = Vec::new();
        let mut next = None;
        if pool.counts.read().1 == 0 {
            return (stuck, next);
        }
        let walks: Vec<_> = self
            .cells()
            .into_iter()
            .filter_map(|cell| cell.walking().map(|(holder, walk)| (cell, holder, walk)))
            .collect();
        let is_asking = |walk: &Walk| matches!(walk.state, State::Asking(_));
        let mut asking = walks.iter().filter(|(.., walk)| is_asking(walk)).count();
        for (cell, holder, walk) in walks {
            let seen = cell.seen(holder);
            let (done, wait) = pool.returns.step(&cell, holder, walk, now, &mut asking);
            next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
            let Some(done) = done else {
                continue;
            };
            if done == Done::Orphaned {
                pool.orphan();
            }
            if let Some(seen) = seen
                && walk.told != Some(done)
            {
                cell.change(holder, |walk| walk.told = Some(done));
                stuck.push(Stuck {
                    cell,
                    seen,
                    since: walk.since,
                    done,
                });
            }
        }
        (stuck, next)
    }
}

/// Has the server asked about this return, unless it ended in the meantime.
fn ask(cell: &Arc<Cell>, holder: HolderId, now: Moment) {
    let Some(runtime) = cell.pool.runtime() else {
        return;
    };
    let mut may_cancel = None;
    cell.change(holder, |walk| {
        walk.state = State::Asking(Asked {
            at: now,
            reached: false,
        });
        may_cancel = Some(!walk.leaving);
    });
    let Some(may_cancel) = may_cancel else {
        return;
    };
    let reached = {
        let cell = Arc::clone(cell);
        Box::new(move || {
            cell.change(holder, |walk| {
                if let State::Asking(asked) = &mut walk.state {
                    asked.reached |= asked.at == now;
                }
            });
        })
    };
    let question = cell.pool.ask(cell.backend(), may_cancel, reached);
    let cell = Arc::clone(cell);
    runtime.spawn(async move {
        let word = question.await;
        cell.change(holder, |walk| {
            // Too late, when the watchdog has given it up.
            match walk.state {
                State::Asking(asked) if asked.at == now => walk.state = State::Answered(word),
                _ => {}
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;
    use std::task::Waker;

    use futures_core::future::BoxFuture;
    use futures_util::FutureExt;

    use super::super::Registry;
    use super::super::cell::Begun;
    use super::super::lease::Lease;
    use super::super::pool::{Attempt, Gauges};
    use super::super::testimony::{Answer, Question};
    use super::*;

    /// A server that gives the same answer to everybody, and counts the questions.
    struct Server {
        /// `None`: it lets the question in, and takes for ever.
        word: Option<Word>,
        asked: Arc<AtomicUsize>,
    }

    impl Gauges for Server {
        fn identity(&self) -> usize {
            1
        }
        fn max(&self) -> u32 {
            1
        }
        fn min(&self) -> u32 {
            0
        }
        fn size(&self) -> u32 {
            1
        }
        fn idle(&self) -> u32 {
            0
        }
        fn acquire_timeout(&self) -> Duration {
            Duration::from_secs(30)
        }
        fn attempt(&self) -> Attempt {
            Box::pin(async { Ok(()) })
        }
        fn ask(&self, _: Option<i64>, _: bool, reached: Reached) -> BoxFuture<'static, Word> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let word = self.word;
            Box::pin(async move {
                match word {
                    // Not let in, and not refused either.
                    Some(Word::Unreachable) => pending().await,
                    Some(word) => word,
                    None => {
                        reached();
                        pending().await
                    }
                }
            })
        }
        fn testify(&self, _: Question) -> BoxFuture<'static, Answer> {
            Box::pin(pending())
        }
    }

    /// A pool whose server says so, and one of its checkouts, on its way back.
    fn returning(
        word: Option<Word>,
        asked: &Arc<AtomicUsize>,
    ) -> (Arc<Registry>, Arc<Slots>, Lease) {
        let registry = Arc::new(Registry::new(crate::config::Unwinder::Portable));
        let asked = Arc::clone(asked);
        let server = Server { word, asked };
        let slots = registry.watch(1, |id, _| PoolRecord::new(id, "orders", Box::new(server)));
        slots.record().runtime_is_here();
        let lease = registry.lease(Arc::clone(&slots), Begun::bare(), true);
        lease.release(true);
        (registry, slots, lease)
    }

    /// A return that never arrives, from its begin to the given age, looked at each 100 ms. Answers
    /// what was done, at which age, how many were left behind, and whether it was given up.
    async fn looked_at(word: Option<Word>, until: Duration) -> (Vec<(u64, Done)>, u64, bool) {
        let asked = Arc::<AtomicUsize>::default();
        let (_registry, slots, lease) = returning(word, &asked);
        let began = Moment::now();
        let mut done = Vec::new();
        let mut age = Duration::ZERO;
        while age <= until {
            let before = asked.load(Ordering::SeqCst);
            let (stuck, _) = slots.look_at_returns(began.after(age));
            done.extend(stuck.iter().map(|stuck| (age.as_secs(), stuck.done)));
            if asked.load(Ordering::SeqCst) > before {
                // Its answer is a task: it runs before the next look.
                tokio::task::yield_now().await;
            }
            age += Duration::from_millis(100);
        }
        let orphaned = slots.record().status(began.after(age)).orphaned;
        let given_up = lease
            .cell()
            .is_given_up(&Context::from_waker(Waker::noop()));
        (done, orphaned, given_up)
    }

    #[tokio::test]
    async fn what_cannot_be_ended_is_kept_for_a_minute_and_then_orphaned() {
        for (word, kept) in [
            (Some(Word::Cancelled), Done::Cancelled),
            (Some(Word::Unknown), Done::Kept),
            (Some(Word::Refused), Done::Kept),
        ] {
            let (done, orphaned, gone) = looked_at(word, Duration::from_secs(59)).await;
            assert_eq!((done, orphaned, gone), (vec![(5, kept)], 0, false));
            let (done, orphaned, gone) = looked_at(word, Duration::from_secs(70)).await;
            assert_eq!(done, [(5, kept), (60, Done::Orphaned)], "each once");
            assert_eq!((orphaned, gone), (1, true));
        }
    }

    #[tokio::test]
    async fn what_is_over_on_the_server_or_cannot_be_reached_is_closed_at_the_limit() {
        for (word, closed) in [
            (Some(Word::Idle), Done::ClosedIdle),
            (Some(Word::Unreachable), Done::ClosedUnreachable),
        ] {
            let (done, orphaned, gone) = looked_at(word, Duration::from_secs(4)).await;
            assert_eq!((done, orphaned, gone), (vec![], 0, false));
            let (done, orphaned, gone) = looked_at(word, Duration::from_secs(70)).await;
            assert_eq!((done, orphaned, gone), (vec![(5, closed)], 0, true));
        }
    }

    #[tokio::test]
    async fn who_was_let_in_and_is_not_answered_asks_again_and_closes_nothing() {
        let (done, orphaned, gone) = looked_at(None, Duration::from_secs(59)).await;
        // The limit, and the patience with a slow answer.
        assert_eq!((done, orphaned, gone), (vec![(10, Done::Kept)], 0, false));
        let (done, orphaned, gone) = looked_at(None, Duration::from_secs(70)).await;
        assert_eq!(done.len(), 2, "{done:?}");
        assert_eq!(done[1].1, Done::Orphaned);
        assert_eq!((orphaned, gone), (1, true));
    }

    #[tokio::test]
    async fn what_a_late_cancel_may_hit_is_given_to_nobody() {
        for (gives_up, goes) in [(true, false), (false, true)] {
            let (_registry, slots, lease) = returning(None, &Arc::default());
            let late = Moment::now().after(Duration::from_secs(5));
            assert!(slots.look_at_returns(late).0.is_empty(), "it is asked");
            tokio::task::yield_now().await;
            let later = late.after(Returns::ANSWER * 2);
            assert!(slots.look_at_returns(later).0.is_empty(), "it was let in");
            if gives_up {
                slots.look_at_returns(late.after(Returns::SLOW));
            }
            // The answer, at last.
            let cell = lease.cell();
            let (holder, _) = cell.walking().expect("it is on its way");
            cell.change(holder, |walk| walk.state = State::Answered(Word::Unknown));
            assert_eq!(cell.leave().now_or_never().is_some(), goes);
            let context = Context::from_waker(Waker::noop());
            assert_eq!(cell.is_given_up(&context), !goes);
        }
    }

    #[tokio::test]
    async fn nobody_is_closed_for_a_silence_that_was_over_before_it_began() {
        let (_registry, slots, _lease) = returning(Some(Word::Idle), &Arc::default());
        let began = slots.cells()[0].walking().expect("on its way").1.since;
        let just_before = Moment::from_nanos(began.as_nanos() - 1).expect("not the first");
        for (silent_at, asks) in [(began, false), (just_before, true)] {
            let returns = &slots.record().returns;
            returns.set_limit(Duration::from_millis(100));
            *returns.unreachable.lock() = Some(silent_at);
            let (cell, holder, walk) = {
                let cell = Arc::clone(&slots.cells()[0]);
                let (holder, walk) = cell.walking().expect("on its way");
                (cell, holder, walk)
            };
            let now = began.after(Duration::from_millis(200));
            let (done, _) = returns.step(&cell, holder, walk, now, &mut 0);
            let closed = Some(Done::ClosedUnreachable);
            assert_eq!(done, if asks { None } else { closed });
            // What was inferred says nothing of the time after it.
            assert_eq!(*returns.unreachable.lock(), Some(silent_at));
            cell.change(holder, |walk| walk.state = State::Walking);
        }
    }

    #[tokio::test]
    async fn a_cancelled_one_does_not_leave_before_that_is_told() {
        for (word, told) in [
            (Word::Cancelled, &[Done::Cancelled][..]),
            // The twin: it was over, and may go by itself.
            (Word::Idle, &[]),
        ] {
            let (_registry, slots, lease) = returning(Some(word), &Arc::default());
            let late = Moment::now().after(Duration::from_secs(5));
            assert!(slots.look_at_returns(late).0.is_empty(), "it is asked");
            tokio::task::yield_now().await;
            let leaves = lease.cell().leave().now_or_never();
            assert_eq!(leaves.is_none(), !told.is_empty(), "{word:?}");
            if leaves.is_none() {
                let (stuck, _) = slots.look_at_returns(late);
                let done: Vec<Done> = stuck.iter().map(|stuck| stuck.done).collect();
                assert_eq!(done, told);
                assert_eq!(lease.cell().leave().now_or_never(), Some(true));
            }
        }
    }
}
