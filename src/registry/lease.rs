//! The value that keeps a checkout registered.
//!
//! Responsible for the begin, the release and the end of a record, each exactly once, on any path.
//! Not responsible for the connection: the pool's guards own that.

use std::sync::Arc;

use super::cell::{Begun, Cell};
use super::slots::{Place, Slots};
use super::{HolderId, Registry, Release};
use crate::clock::Moment;
use crate::sync::atomic::Ordering;

/// Keeps a holder registered. Its drop ends the record.
///
/// The pool counts leases, held and returning: a lease counts as exactly one of them until it ends.
#[must_use]
pub(crate) struct Lease {
    slots: Arc<Slots>,
    place: Place,
    /// Given away with its permit: the record stays for good.
    leaked: bool,
}

impl Registry {
    /// Registers one checkout. With `listed` false it counts, but is not shown: detail `off`.
    ///
    /// # Cost
    /// Four atomic operations and one clock read; nothing is allocated after the first use of a
    /// cell. No symbol is resolved here; reports do that.
    pub(crate) fn lease(&self, slots: Arc<Slots>, begun: Begun, listed: bool) -> Lease {
        let place = slots.take();
        slots
            .cell(&place)
            .begin(self.new_id(), Moment::now(), begun, listed);
        let pool = slots.record();
        if !listed {
            pool.unlisted.fetch_add(1, Ordering::AcqRel);
        }
        pool.counts.take();
        Lease {
            slots,
            place,
            leaked: false,
        }
    }
}

impl Lease {
    pub(crate) fn cell(&self) -> &Arc<Cell> {
        self.slots.cell(&self.place)
    }

    pub(crate) fn id(&self) -> HolderId {
        self.cell().id()
    }

    /// Ends the hold time: the connection is on its way back. Later calls do nothing. `walks`: the
    /// return has a limit, which the watchdog keeps.
    pub(crate) fn release(&self, walks: bool) {
        let Some((listed, ended)) = self.cell().release(walks) else {
            return;
        };
        let pool = self.slots.record();
        pool.counts.release();
        if !listed {
            pool.unlisted.fetch_sub(1, Ordering::AcqRel);
        }
        if let Some(ended) = ended
            && let Some(registry) = self.slots.registry()
        {
            registry.ended.lock().push(ended);
        }
    }

    /// The permit never comes back, on purpose: the holder stays listed, and counts as held.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
        self.cell().leak();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        self.release(false);
        let registry = self.slots.registry();
        let over = match &registry {
            Some(registry) => registry.totals.take(self.cell()),
            None => self.cell().finish(),
        };
        let Some(over) = over else {
            return;
        };
        let pool = self.slots.record();
        if let Some(registry) = registry {
            let release = Release::new(pool, &over);
            registry
                .observed
                .tell(|observer| observer.released(&release));
        }
        self.slots.give_back(&self.place);
        pool.counts.end();
        pool.came_back();
    }
}
