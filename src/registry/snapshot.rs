//! A copy of the registry at one moment.
//!
//! Responsible for copying and ordering. Formatting and judging work on the copy, outside of any
//! lock.

use std::sync::Arc;
use std::time::Duration;

use super::totals::MINUTE;
use super::{Closing, Holder, PoolInfo, PoolRecord, Registry, Said, SiteTotal, Waiter};
use crate::clock::{Moment, Stops};
use crate::config::Threshold;

/// What a copy needs to know of the settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) threshold: Threshold,
    pub(crate) idle_in_transaction: Option<Duration>,
    pub(crate) grace: Duration,
}

/// Everything that is known at one moment. Holders and waiters stand oldest first.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) holders: Vec<Holder>,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) pools: Vec<PoolInfo>,
    pub(crate) totals: Vec<SiteTotal>,
    /// Calls of `close()` that have not ended, with the pool's id.
    pub(crate) closings: Vec<(Arc<PoolRecord>, Closing)>,
    /// What was not recorded because there was no room: stacks, statements, sites.
    pub(crate) dropped: u64,
}

impl Registry {
    /// A copy without the totals, which [`Registry::add_totals`] adds: they cost more than the rest.
    pub(crate) fn snapshot(&self, now: Moment, limits: &Limits, stops: &Stops) -> Snapshot {
        let pools = self.pools();
        // Before the holders: who gives one back and then waits is not seen to hold and to wait.
        let waiters = self.waiters(now);
        Snapshot {
            holders: self.holders(now, limits, stops),
            waiters,
            pools: pools.iter().map(|pool| pool.info(now)).collect(),
            totals: Vec::new(),
            closings: pools
                .iter()
                .filter_map(|pool| Some((Arc::clone(pool), pool.oldest_closing()?)))
                .collect(),
            dropped: self.stacks.dropped() + self.statements.dropped() + self.totals.dropped(),
        }
    }

    pub(crate) fn holders(&self, now: Moment, limits: &Limits, stops: &Stops) -> Vec<Holder> {
        let cells: Vec<_> = self.cells().collect();
        // Room for all of them at once: a vector that grows copies them each time.
        let mut holders = Vec::with_capacity(cells.len());
        holders.extend(
            cells
                .iter()
                .filter_map(|cell| cell.listed(now, limits, stops)),
        );
        holders.sort_by_key(|holder| (holder.acquired_at, holder.id));
        self.testimonies.join(&mut holders, now);
        holders
    }

    pub(crate) fn add_totals(&self, snapshot: &mut Snapshot, now: Moment) {
        let pools = self.pools();
        let could_give = |id| {
            let pool = pools.iter().find(|pool| pool.id == id);
            pool.map_or(Duration::ZERO, |pool| {
                now.since(pool.since).min(MINUTE) * pool.max()
            })
        };
        let cells = || self.cells().collect();
        snapshot.totals = self.totals.view(now, &cells, &could_give);
    }

    /// Joins what the servers have said since these copies were made.
    pub(crate) fn join_testimonies(&self, holders: &mut [Holder], now: Moment) {
        self.testimonies.join(holders, now);
    }

    /// Keeps what a server said of the holders of one pool, who were so when it was asked.
    pub(crate) fn keep_testimonies(&self, said: Vec<Said>, asked: &[Holder], asked_at: Moment) {
        // Neither limits nor stops decide what was seen of a holder.
        let after = self.holders(Moment::now(), &Limits::default(), &Stops::default());
        self.testimonies.keep(said, asked, &after, asked_at);
    }

    pub(crate) fn waiters(&self, now: Moment) -> Vec<Waiter> {
        let mut waiters: Vec<Waiter> = self.waiters.iter().map(|cell| cell.view(now)).collect();
        waiters.sort_by_key(|waiter| std::cmp::Reverse(waiter.waited_for));
        waiters
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threshold: Threshold::Auto,
            idle_in_transaction: None,
            grace: Duration::from_secs(1),
        }
    }
}
