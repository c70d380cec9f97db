//! The record of one acquire that has to wait.
//!
//! Responsible for who waits, since when, and how many. Not responsible for deciding that an
//! acquire waits: the pool's acquire future does that, because only it sees its polls.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use super::holder::{HolderKind, Owner, ScopeInfo};
use super::pool::PoolRecord;
use super::{Policy, Registry};
use crate::clock::Moment;
use crate::scope::Scope;
use crate::site::{CallSite, Location, text};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A copy of what is known of one acquire that waits.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Waiter {
    /// The pool's name.
    pub pool: String,
    /// What it wants.
    pub kind: HolderKind,
    /// The label of the pool handle it goes through.
    pub label: Option<String>,
    /// The line that waits. `None` for a pooled statement.
    pub acquired_by: Option<Location>,
    /// How long it has waited.
    #[cfg_attr(
        feature = "json",
        serde(rename = "waited_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub waited_for: Duration,
    /// How long ago its future was last polled.
    #[cfg_attr(
        feature = "json",
        serde(
            rename = "last_polled_ago_ms",
            serialize_with = "crate::clock::json::millis"
        )
    )]
    pub last_polled_ago: Duration,
    /// The request or job it serves.
    pub scope: Option<ScopeInfo>,

    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) id: u64,
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) pool_id: u64,
    /// From when to when it waited; until this copy was made, if it still does.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) waited: (Moment, Moment),
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) owner: Option<Owner>,
    /// How long ago it was woken, without having been polled since.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) woken_ago: Option<Duration>,
}

#[cfg(test)]
impl Waiter {
    /// One that has waited for two seconds, and of which nothing else is known.
    pub(crate) fn bare(id: u64) -> Self {
        let waited_for = Duration::from_secs(2);
        Self {
            pool: "orders".into(),
            kind: HolderKind::Statement,
            label: None,
            acquired_by: None,
            waited_for,
            last_polled_ago: waited_for,
            scope: None,
            id,
            pool_id: 1,
            waited: (Moment::FIRST, Moment::FIRST.after(waited_for)),
            owner: None,
            woken_ago: None,
        }
    }
}

/// What is kept of an acquire while it waits.
pub(super) struct WaiterCell {
    id: u64,
    pub(super) pool: Arc<PoolRecord>,
    kind: HolderKind,
    policy: Policy,
    acquired_by: Option<CallSite>,
    since: Moment,
    scope: Option<Scope>,
    owner: Owner,
    spy: Arc<Spy>,
}

/// Passes wake-ups on, and remembers them: a waiter that was woken and is not polled has been
/// granted a connection that nobody takes (A1).
struct Spy {
    task: Mutex<Option<Waker>>,
    /// Zero, or when it was woken without having been polled since.
    woken_at: AtomicU64,
    polled_at: AtomicU64,
}

impl Wake for Spy {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The first wake-up since its last poll: the grant. Its own timeout wakes it again later.
        let now = Moment::now().as_nanos();
        let _ = self
            .woken_at
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        // Not under the lock: a waker may run anything.
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl WaiterCell {
    pub(super) fn view(&self, now: Moment) -> Waiter {
        let ago = |stamp: &AtomicU64| {
            Moment::from_nanos(stamp.load(Ordering::Relaxed)).map(|at| now.since(at))
        };
        Waiter {
            pool: self.pool.name.clone(),
            kind: self.kind,
            label: self
                .policy
                .label
                .map(|label| text::escape_text(label, 100).into_owned()),
            acquired_by: self.acquired_by.map(Location::from),
            waited_for: now.since(self.since),
            waited: (self.since, now),
            last_polled_ago: ago(&self.spy.polled_at).unwrap_or_default(),
            scope: self.scope.as_ref().map(ScopeInfo::of),
            id: self.id,
            pool_id: self.pool.id,
            owner: Some(self.owner),
            woken_ago: ago(&self.spy.woken_at),
        }
    }
}

/// Keeps a waiter registered. Its drop ends the record.
#[must_use]
pub(crate) struct Waiting {
    registry: Arc<Registry>,
    cell: Arc<WaiterCell>,
    waker: Waker,
    /// It came to an end of its own: granted or refused. Otherwise it gave up.
    pub(crate) over: bool,
}

impl Registry {
    /// Registers an acquire that found no connection at once.
    pub(crate) fn wait(
        self: &Arc<Self>,
        pool: &Arc<PoolRecord>,
        kind: HolderKind,
        policy: Policy,
        acquired_by: Option<CallSite>,
        since: Moment,
    ) -> Waiting {
        pool.waiting.fetch_add(1, Ordering::AcqRel);
        let scope = Scope::current();
        let spy = Arc::new(Spy {
            task: Mutex::default(),
            woken_at: AtomicU64::new(0),
            polled_at: AtomicU64::new(Moment::now().as_nanos()),
        });
        let waker = Waker::from(Arc::clone(&spy));
        let id = self.new_id();
        let cell = Arc::new(WaiterCell {
            id,
            pool: Arc::clone(pool),
            kind,
            policy,
            acquired_by,
            since,
            owner: Owner::current(scope.as_ref()),
            scope,
            spy,
        });
        self.waiters.insert(id, Arc::clone(&cell));
        Waiting {
            registry: Arc::clone(self),
            cell,
            waker,
            over: false,
        }
    }
}

impl Waiting {
    /// The waker to wait with in place of that of the task, which is polling now.
    pub(crate) fn waker(&self, task: &Waker) -> &Waker {
        let spy = &self.cell.spy;
        let now = Moment::now().as_nanos();
        spy.polled_at.store(now, Ordering::Relaxed);
        spy.woken_at.store(0, Ordering::Relaxed);
        let mut known = spy.task.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
        &self.waker
    }

    /// A copy of what is known of it.
    pub(crate) fn view(&self) -> Waiter {
        self.cell.view(Moment::now())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.registry.waiters.remove(&self.cell.id);
        self.cell.pool.waiting.fetch_sub(1, Ordering::AcqRel);
        if !self.over {
            self.registry.gave_up(self.view());
        }
    }
}
