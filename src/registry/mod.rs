//! Who holds what, right now.
//!
//! Responsible for the record of each watched pool, of each checkout and of each waiter, and for
//! copies of them. Not responsible for judging (`judge`), for speaking (`sink`) or for databases:
//! what sqlx knows comes in through [`Gauges`].
//!
//! # Lock rules
//! - A cell's `live` lock is taken alone, and so is `Registry::pools`: lists are copied first.
//! - A lock is never held over a call into the user's code, an allocation of unbounded size, or the
//!   naming of a symbol.

mod asking;
mod attempts;
mod bits;
mod cell;
mod counts;
mod doubts;
mod habits;
mod holder;
mod lease;
mod locks;
mod lows;
mod observer;
mod pool;
mod pulse;
mod returns;
mod slots;
mod snapshot;
mod status;
mod tallies;
mod testimony;
mod totals;
mod waiter;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;

pub(crate) use self::attempts::Attempted;
pub(crate) use self::bits::Bits;
pub(crate) use self::cell::{Begun, Cell, Ended, Ending, Use};
pub(crate) use self::doubts::Doubts;
pub(crate) use self::holder::Owner;
pub use self::holder::{Activity, Cut, Holder, HolderId, HolderKind, Phase, ScopeInfo, SpanInfo};
pub(crate) use self::lease::Lease;
pub use self::locks::{Blocker, Blocks};
pub(crate) use self::observer::Observed;
pub use self::observer::{AlreadyObserved, CheckoutObserver, Grant, Release};
pub(crate) use self::pool::{Attempt, Closing, Gauges, Policy, PoolRecord};
pub(crate) use self::pulse::Pulse;
pub(crate) use self::returns::{Done, Reached, Stuck, Word};
pub(crate) use self::slots::Slots;
pub(crate) use self::snapshot::{Limits, Snapshot};
pub use self::status::{PoolInfo, PoolStatus};
pub(crate) use self::tallies::Rollback;
pub use self::tallies::{PoolCounts, RollbackCounts};
use self::testimony::Testimonies;
pub(crate) use self::testimony::{Answer, Question, Said, share_a_backend};
pub use self::testimony::{ServerState, Testimony};
pub use self::totals::SiteTotal;
use self::totals::Totals;
pub use self::waiter::Waiter;
pub(crate) use self::waiter::Waiting;
use crate::config::Unwinder;
use crate::site::{Stacks, Statements};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Every pool, holder and waiter of one monitor.
pub(crate) struct Registry {
    waiters: DashMap<u64, Arc<waiter::WaiterCell>>,
    /// Weak: slots live as long as a pool or a holder of it.
    pools: Mutex<Vec<Weak<Slots>>>,
    /// Holders that were reported and have come back since the last scan.
    ended: Mutex<Vec<Ended>>,
    /// Waiters that gave up since the last scan: what they waited for may be worth saying.
    gave_up: Mutex<Vec<Waiter>>,
    totals: Totals,
    pub(crate) observed: Observed,
    testimonies: Testimonies,
    next_id: AtomicU64,
    /// The shortest threshold that any handle of a pool was given, in nanoseconds.
    shortest: AtomicU64,
    pub(crate) stacks: Stacks,
    pub(crate) statements: Statements,
}

impl Registry {
    pub(crate) fn new(unwinder: Unwinder) -> Self {
        Self {
            waiters: DashMap::new(),
            pools: Mutex::new(Vec::new()),
            ended: Mutex::new(Vec::new()),
            gave_up: Mutex::default(),
            totals: Totals::new(),
            observed: Observed::default(),
            testimonies: Testimonies::default(),
            next_id: AtomicU64::new(1),
            shortest: AtomicU64::new(u64::MAX),
            stacks: Stacks::new(unwinder),
            statements: Statements::new(),
        }
    }

    /// The slots of the pool with that identity; the record is made with `make`, which is given an id
    /// and the names that are taken, when it is not known yet.
    pub(crate) fn watch(
        self: &Arc<Self>,
        identity: usize,
        make: impl FnOnce(u64, &[String]) -> PoolRecord,
    ) -> Arc<Slots> {
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        // A record keeps its sqlx pool alive, so an address in this list is never reused.
        let live: Vec<_> = pools.iter().filter_map(Weak::upgrade).collect();
        let known = live
            .iter()
            .find(|pool| pool.record().identity() == identity);
        known.cloned().unwrap_or_else(|| {
            let names: Vec<String> = live.iter().map(|pool| pool.record().name.clone()).collect();
            let record = make(self.new_id(), &names);
            let pool = Arc::new(Slots::new(record, &Arc::downgrade(self)));
            pools.push(Arc::downgrade(&pool));
            pool
        })
    }

    pub(crate) fn slots(&self) -> Vec<Arc<Slots>> {
        self.pools.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn pools(&self) -> Vec<Arc<PoolRecord>> {
        let slots = self.slots();
        slots
            .iter()
            .map(|slots| Arc::clone(slots.record()))
            .collect()
    }

    /// Every cell that may be out.
    fn cells(&self) -> impl Iterator<Item = Arc<Cell>> {
        self.slots().into_iter().flat_map(|slots| slots.cells())
    }

    /// Whether there is anything that could become overdue.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.somebody_waits()
            && self.ended.lock().is_empty()
            && self.slots().iter().all(|slots| slots.record().is_quiet())
    }

    /// Marks the checkouts of a scope that is being cut, and answers in what each of them is.
    #[cfg(feature = "tower")]
    pub(crate) fn cuts(&self, scope: u64) -> Vec<Cut> {
        self.cells().filter_map(|cell| cell.cut(scope)).collect()
    }

    pub(crate) fn take_ended(&self) -> Vec<Ended> {
        std::mem::take(&mut *self.ended.lock())
    }

    /// Notes that a waiter was dropped before it was served.
    fn gave_up(&self, waiter: Waiter) {
        /// Between two scans; what does not fit tells no more than what does.
        const KEPT: usize = 64;
        let mut gave_up = self.gave_up.lock();
        if gave_up.len() < KEPT {
            gave_up.push(waiter);
        }
    }

    /// Whether somebody waits, or gave up since the last scan.
    pub(crate) fn somebody_waits(&self) -> bool {
        !self.waiters.is_empty() || !self.gave_up.lock().is_empty()
    }

    pub(crate) fn take_gave_up(&self) -> Vec<Waiter> {
        std::mem::take(&mut *self.gave_up.lock())
    }

    /// Notes which finding speaks of which holder, so that its end is told too.
    ///
    /// A holder that ended in the meantime is handed to [`Registry::take_ended`] at once.
    ///
    /// # Cost
    /// One look at each cell, however many are claimed.
    pub(crate) fn claim(&self, claimed: impl IntoIterator<Item = (HolderId, u64)>) {
        let mut claimed: HashMap<_, _> = claimed.into_iter().collect();
        if claimed.is_empty() {
            return;
        }
        for cell in self.cells() {
            let holder = cell.id();
            let Some(&finding) = claimed.get(&holder) else {
                continue;
            };
            if let Some(claim) = cell.claim(holder, finding) {
                claimed.remove(&holder);
                self.ended.lock().extend(claim.err());
            }
        }
        // Since the snapshot they were released, and are back already.
        let gone = claimed.into_iter().map(|(holder, finding)| Ended {
            finding,
            holder,
            held_for: Duration::ZERO,
            cut: None,
        });
        self.ended.lock().extend(gone);
    }

    /// Notes the threshold of a handle; true when it is the shortest so far.
    pub(crate) fn note_threshold(&self, threshold: Duration) -> bool {
        let nanos = u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX);
        self.shortest.fetch_min(nanos, Ordering::Relaxed) > nanos
    }

    /// The shortest threshold that any handle of a pool was given.
    pub(crate) fn shortest_policy(&self) -> Duration {
        Duration::from_nanos(self.shortest.load(Ordering::Relaxed))
    }

    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// The places where something was done, few and distinct.
#[derive(Debug, Default)]
pub(crate) struct CallSiteList {
    sites: Vec<crate::site::CallSite>,
}

impl CallSiteList {
    const KEPT: usize = 8;

    fn add(&mut self, site: crate::site::CallSite) {
        if self.sites.len() < Self::KEPT && !self.sites.contains(&site) {
            self.sites.push(site);
        }
    }

    fn sites(&self) -> impl Iterator<Item = crate::site::CallSite> {
        self.sites.iter().copied()
    }
}
