//! The connections that are on their way back, and for how long they may be.
//!
//! Responsible for the limit of each return and for what is done at it: ask the server, wait, or
//! abort the task. Not responsible for how a server is asked ([`Gauges::ask`]) or for saying it.
//!
//! There is no timer per return: the watchdog looks, also when the runtime's time is paused.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::cell::Cell;
use super::pool::Gauges;
use crate::clock::Moment;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the server says of the backend of a connection that does not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// No side connection could be had within its limit.
    Unreachable,
    /// It is not there any more, it runs nothing, or nothing of ours runs at all.
    Idle,
    /// It runs our statement, and was told to cancel it.
    Cancelled,
    /// Which backend it is was never learned, or the server cannot be asked.
    Unknown,
}

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
    pub(crate) since: Moment,
    pub(crate) done: Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Walking,
    /// The server is being asked.
    Asking(Moment),
    Answered(Word),
    /// Waiting for what the server does, until it is asked again.
    Kept(Moment),
    Aborted,
}

struct Return {
    since: Moment,
    backend: Option<i64>,
    cell: Arc<Cell>,
    runtime: Handle,
    task: OnceLock<AbortHandle>,
    state: Mutex<State>,
    /// sqlx has the connection: from here on a statement that runs may be the next borrower's.
    leaving: AtomicBool,
    /// The walk, when it waits for an answer.
    walk: AtomicWaker,
    told: Mutex<Option<Done>>,
}

/// The returns of one pool.
pub(crate) struct Returns {
    list: Mutex<HashMap<u64, Arc<Return>>>,
    /// Their statement was cancelled, and they arrived before anybody had looked again.
    unsaid: Mutex<Vec<Arc<Return>>>,
    limit: AtomicU64,
    next_id: AtomicU64,
    /// When the server was last found to be unreachable: then the others need not ask.
    unreachable: Mutex<Option<Moment>>,
}

impl Default for Returns {
    fn default() -> Self {
        Self {
            list: Mutex::default(),
            unsaid: Mutex::default(),
            limit: AtomicU64::new(nanos(Self::LIMIT)),
            next_id: AtomicU64::new(0),
            unreachable: Mutex::default(),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Keeps a return in the list. Its drop, wherever that is, takes it out.
pub(crate) struct Returning {
    cell: Arc<Cell>,
    id: u64,
    this: Arc<Return>,
}

impl Returning {
    /// The task that walks: what is aborted at the limit.
    pub(crate) fn task(&self) -> impl FnOnce(AbortHandle) + use<> {
        let this = Arc::clone(&self.this);
        move |task| {
            let _ = this.task.set(task);
        }
    }

    /// Before sqlx gets the connection: waits while the server is being asked, so that a cancel
    /// cannot hit the next borrower. Answers whether it was asked.
    pub(crate) async fn leave(&self) -> bool {
        std::future::poll_fn(|cx| {
            self.this.walk.register(cx.waker());
            let state = self.this.state.lock();
            match *state {
                State::Asking(_) => Poll::Pending,
                state => {
                    self.this.leaving.store(true, Ordering::SeqCst);
                    Poll::Ready(state != State::Walking)
                }
            }
        })
        .await
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        let returns = &self.cell.pool.returns;
        if *self.this.state.lock() == State::Answered(Word::Cancelled) {
            returns.unsaid.lock().push(Arc::clone(&self.this));
        }
        returns.list.lock().remove(&self.id);
    }
}

impl Returns {
    /// A peer that is silent for this long is given up.
    const LIMIT: Duration = Duration::from_secs(5);
    /// The side connection may take so long: together with the limit less than 6 s.
    const ANSWER: Duration = Duration::from_millis(900);
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

    pub(crate) fn is_empty(&self) -> bool {
        self.list.lock().is_empty() && self.unsaid.lock().is_empty()
    }

    pub(crate) fn begin(
        &self,
        cell: &Arc<Cell>,
        backend: Option<i64>,
        runtime: &Handle,
    ) -> Returning {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let this = Arc::new(Return {
            since: Moment::now(),
            backend,
            cell: Arc::clone(cell),
            runtime: runtime.clone(),
            task: OnceLock::new(),
            state: Mutex::new(State::Walking),
            leaving: AtomicBool::new(false),
            walk: AtomicWaker::new(),
            told: Mutex::default(),
        });
        self.list.lock().insert(id, Arc::clone(&this));
        Returning {
            cell: Arc::clone(cell),
            id,
            this,
        }
    }

    /// Looks at every return: acts on those beyond their limit, answers what is to be told, and when
    /// to look again.
    pub(super) fn look(
        &self,
        now: Moment,
        gauges: &dyn Gauges,
        orphan: &dyn Fn(),
    ) -> (Vec<Stuck>, Option<Duration>) {
        let mut stuck = Vec::new();
        let mut next = None;
        let limit = self.limit();
        let list: Vec<_> = self.list.lock().values().cloned().collect();
        let mut asking = list.iter().filter(|each| each.is_asking()).count();
        for each in list {
            let (done, wait) = self.step(&each, now, limit, gauges, &mut asking);
            next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
            let Some(done) = done else {
                continue;
            };
            if done == Done::Orphaned {
                orphan();
            }
            stuck.extend(each.tell(done));
        }
        let unsaid = std::mem::take(&mut *self.unsaid.lock());
        stuck.extend(unsaid.iter().filter_map(|each| each.tell(Done::Cancelled)));
        (stuck, next)
    }

    fn step(
        &self,
        each: &Arc<Return>,
        now: Moment,
        limit: Duration,
        gauges: &dyn Gauges,
        asking: &mut usize,
    ) -> (Option<Done>, Duration) {
        let age = now.since(each.since);
        let state = *each.state.lock();
        let word = match state {
            State::Aborted => return (None, Duration::MAX),
            State::Walking if age < limit => return (None, limit - age),
            State::Kept(until) if now < until && age < Self::PATIENCE => {
                return (None, until.since(now));
            }
            State::Walking | State::Kept(_) if self.is_unreachable(now) => Word::Unreachable,
            State::Walking | State::Kept(_) => {
                if *asking < Self::ASKING {
                    *asking += 1;
                    each.ask(now, gauges);
                }
                return (None, Self::ANSWER / 20);
            }
            State::Asking(since) if now.since(since) < Self::ANSWER => {
                return (None, Self::ANSWER / 20);
            }
            State::Asking(_) => Word::Unreachable,
            State::Answered(word) => word,
        };
        let kept = |done| {
            *each.state.lock() = State::Kept(now.after(limit.max(Self::ANSWER)));
            (Some(done), limit.max(Self::ANSWER))
        };
        let gone = |done| {
            *each.state.lock() = State::Aborted;
            if let Some(task) = each.task.get() {
                task.abort();
            }
            (Some(done), Duration::MAX)
        };
        match word {
            Word::Unreachable => {
                *self.unreachable.lock() = Some(now);
                gone(Done::ClosedUnreachable)
            }
            Word::Idle => gone(Done::ClosedIdle),
            Word::Cancelled | Word::Unknown if age >= Self::PATIENCE => gone(Done::Orphaned),
            Word::Cancelled => kept(Done::Cancelled),
            Word::Unknown => kept(Done::Kept),
        }
    }

    fn is_unreachable(&self, now: Moment) -> bool {
        let at = *self.unreachable.lock();
        at.is_some_and(|at| now.since(at) < Self::ANSWER)
    }
}

impl Return {
    /// What is to be told, unless it was.
    fn tell(&self, done: Done) -> Option<Stuck> {
        let told = self.told.lock().replace(done);
        (told != Some(done)).then(|| Stuck {
            cell: Arc::clone(&self.cell),
            since: self.since,
            done,
        })
    }

    fn is_asking(&self) -> bool {
        matches!(*self.state.lock(), State::Asking(_))
    }

    fn ask(self: &Arc<Self>, now: Moment, gauges: &dyn Gauges) {
        let mut state = self.state.lock();
        *state = State::Asking(now);
        let may_cancel = !self.leaving.load(Ordering::SeqCst);
        drop(state);
        let question = gauges.ask(self.backend, may_cancel);
        let this = Arc::clone(self);
        self.runtime.spawn(async move {
            let word = question.await;
            let mut state = this.state.lock();
            // Too late, when the watchdog has given it up.
            if *state == State::Asking(now) {
                *state = State::Answered(word);
            }
            drop(state);
            this.walk.wake();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;

    use futures_core::future::BoxFuture;

    use super::super::cell::Begun;
    use super::super::holder::HolderKind;
    use super::super::pool::{Attempt, Policy, PoolRecord};
    use super::super::testimony::{Answer, Question};
    use super::*;

    /// A server that gives the same answer to everybody, and counts the questions.
    struct Server {
        word: Word,
        asked: Arc<AtomicUsize>,
    }

    impl Gauges for Server {
        fn identity(&self) -> usize {
            1
        }
        fn max(&self) -> u32 {
            1
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
        fn ask(&self, _: Option<i64>, _: bool) -> BoxFuture<'static, Word> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let word = self.word;
            Box::pin(async move { word })
        }
        fn testify(&self, _: Question) -> BoxFuture<'static, Answer> {
            Box::pin(pending())
        }
    }

    /// A pool whose server says so, and one of its checkouts.
    fn checkout(word: Word, asked: &Arc<AtomicUsize>) -> (Arc<PoolRecord>, Arc<Cell>) {
        let server = Server {
            word,
            asked: Arc::clone(asked),
        };
        let pool = Arc::new(PoolRecord::new(1, "orders", Box::new(server)));
        let begun = Begun {
            pool: Arc::clone(&pool),
            kind: HolderKind::Connection,
            policy: Policy::default(),
            waited: Duration::ZERO,
            acquired_by: None,
            stack: None,
            scope: None,
            task: None,
            span: None,
        };
        let cell = Arc::new(Cell::new(1, Moment::now(), begun));
        (pool, cell)
    }

    /// A return that never arrives, from its begin to the given age, looked at each 100 ms. Answers
    /// what was done, at which age, and how many were left behind.
    async fn looked_at(word: Word, until: Duration) -> (Vec<(u64, Done)>, u64, bool) {
        let asked = Arc::<AtomicUsize>::default();
        let (pool, cell) = checkout(word, &asked);
        let returning = pool.returns.begin(&cell, Some(7), &Handle::current());
        let began = Moment::now();
        let walk = tokio::spawn(pending::<()>());
        returning.task()(walk.abort_handle());
        let mut done = Vec::new();
        let mut age = Duration::ZERO;
        while age <= until {
            let before = asked.load(Ordering::SeqCst);
            let (stuck, _) = pool.look_at_returns(began.after(age));
            done.extend(stuck.iter().map(|stuck| (age.as_secs(), stuck.done)));
            if asked.load(Ordering::SeqCst) > before {
                // Its answer is a task: it runs before the next look.
                tokio::task::yield_now().await;
            }
            age += Duration::from_millis(100);
        }
        let orphaned = pool.status(began.after(age)).orphaned;
        tokio::task::yield_now().await;
        (done, orphaned, walk.is_finished())
    }

    #[tokio::test]
    async fn what_cannot_be_ended_is_kept_for_a_minute_and_then_orphaned() {
        for (word, kept) in [
            (Word::Cancelled, Done::Cancelled),
            (Word::Unknown, Done::Kept),
        ] {
            let (done, orphaned, gone) = looked_at(word, Duration::from_secs(59)).await;
            assert_eq!((done, orphaned, gone), (vec![(5, kept)], 0, false));
            let (done, orphaned, gone) = looked_at(word, Duration::from_secs(70)).await;
            assert_eq!(done, [(5, kept), (60, Done::Orphaned)], "each once");
            assert_eq!((orphaned, gone), (1, true), "and its permit is back");
        }
    }

    #[tokio::test]
    async fn a_cancel_is_told_also_when_its_return_arrives_before_the_next_look() {
        for (word, told) in [
            (Word::Cancelled, &[Done::Cancelled][..]),
            // The twin: it was over, and arrived by itself.
            (Word::Idle, &[]),
        ] {
            let (pool, cell) = checkout(word, &Arc::default());
            let returning = pool.returns.begin(&cell, Some(7), &Handle::current());
            let late = Moment::now().after(Duration::from_secs(5));
            assert!(pool.look_at_returns(late).0.is_empty(), "it is being asked");
            tokio::task::yield_now().await;
            assert!(returning.leave().await, "it was asked");
            drop(returning);
            assert_eq!(pool.returns.is_empty(), told.is_empty());
            for told in [told, &[]] {
                let (stuck, _) = pool.look_at_returns(late);
                let done: Vec<Done> = stuck.iter().map(|stuck| stuck.done).collect();
                assert_eq!(done, told, "{word:?}, once");
            }
        }
    }

    #[tokio::test]
    async fn what_is_over_on_the_server_or_cannot_be_reached_is_closed_at_the_limit() {
        for (word, closed) in [
            (Word::Idle, Done::ClosedIdle),
            (Word::Unreachable, Done::ClosedUnreachable),
        ] {
            let (done, orphaned, gone) = looked_at(word, Duration::from_secs(4)).await;
            assert_eq!((done, orphaned, gone), (vec![], 0, false));
            let (done, orphaned, gone) = looked_at(word, Duration::from_secs(70)).await;
            assert_eq!((done, orphaned, gone), (vec![(5, closed)], 0, true));
        }
    }
}
