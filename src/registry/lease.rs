//! The value that keeps a checkout registered.
//!
//! Responsible for the begin, the release and the end of a record, each exactly once, on any path.
//! Not responsible for the connection: the pool's guards own that.

use std::sync::Arc;

use super::cell::{Begun, Cell};
use super::holder::Phase;
use super::{HolderId, Registry};
use crate::clock::Moment;
use crate::sync::atomic::Ordering;

/// Keeps a holder registered. Its drop ends the record.
///
/// `held` and `returning` of the pool count leases, by phase: a lease counts in exactly one of
/// them until it ends.
#[must_use]
pub(crate) struct Lease {
    registry: Arc<Registry>,
    cell: Arc<Cell>,
    listed: bool,
}

impl Registry {
    /// Registers one checkout. With `listed` false it counts, but is not shown: detail `off`.
    ///
    /// # Cost
    /// Two allocations and one lock of a shard. No symbol is resolved here; reports do that.
    pub(crate) fn lease(self: &Arc<Self>, begun: Begun, listed: bool) -> Lease {
        begun.pool.held.fetch_add(1, Ordering::AcqRel);
        let cell = Arc::new(Cell::new(self.new_id(), Moment::now(), begun));
        if listed {
            self.holders.insert(cell.id, Arc::clone(&cell));
        } else {
            cell.pool.unlisted.fetch_add(1, Ordering::AcqRel);
        }
        Lease {
            registry: Arc::clone(self),
            cell,
            listed,
        }
    }
}

impl Lease {
    pub(crate) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    pub(crate) fn id(&self) -> HolderId {
        HolderId(self.cell.id)
    }

    /// Ends the hold time: the connection is on its way back. Later calls do nothing.
    pub(crate) fn release(&self) {
        let Some(released) = self.cell.release() else {
            return;
        };
        let pool = &self.cell.pool;
        pool.returning.fetch_add(1, Ordering::AcqRel);
        pool.held.fetch_sub(1, Ordering::AcqRel);
        if !self.listed {
            pool.unlisted.fetch_sub(1, Ordering::AcqRel);
        }
        if let Some(finding) = released.finding {
            self.registry.ended.lock().push(self.cell.ended(finding));
        }
        self.registry.totals.add(&self.cell, released);
    }

    /// The permit never comes back, on purpose: the holder stays listed, and counts as held.
    pub(crate) fn leak(&self) {
        self.cell.set_phase(Phase::LeakedOnPurpose);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.cell.phase() == Phase::LeakedOnPurpose {
            return;
        }
        self.release();
        if self.cell.finish() {
            self.registry.holders.remove(&self.cell.id);
            self.cell.pool.returning.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
