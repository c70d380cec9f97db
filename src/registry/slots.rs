//! The cells of one pool: as many as it has connections, used again and again.
//!
//! Responsible for handing out a free cell without a lock and without an allocation, and for
//! showing all that are out. Not responsible for what a cell keeps.
//!
//! A cell is taken by setting its bit, and given back by clearing it: nobody else writes a bit that
//! is set, so a cell has one owner. Readers do not take cells: each cell has a lock of its own, and
//! says under it whether it is out. More holders than cells (detached and leaked ones keep theirs)
//! get a cell of their own, in a list under a lock.

use std::sync::{Arc, OnceLock, Weak};

use super::bits::Bits;
use super::cell::Cell;
use super::pool::PoolRecord;
use crate::sync::Mutex;

/// The cells of one pool.
pub(crate) struct Slots {
    record: Arc<PoolRecord>,
    registry: Weak<super::Registry>,
    taken: Bits,
    /// Made when they are first taken.
    cells: Box<[OnceLock<Arc<Cell>>]>,
    overflow: Mutex<Vec<Arc<Cell>>>,
}

/// Where the cell of a lease is.
pub(super) enum Place {
    Slot(usize),
    Overflow(Arc<Cell>),
}

impl Slots {
    /// The most cells that are kept for one pool; a larger pool allocates the rest.
    const MOST: usize = 1 << 14;

    pub(super) fn new(record: PoolRecord, registry: &Weak<super::Registry>) -> Self {
        let count =
            usize::try_from(record.max()).map_or(Self::MOST, |max| max.clamp(1, Self::MOST));
        Self {
            record: Arc::new(record),
            registry: Weak::clone(registry),
            taken: Bits::new(count),
            cells: (0..count).map(|_| OnceLock::new()).collect(),
            overflow: Mutex::default(),
        }
    }

    pub(crate) fn record(&self) -> &Arc<PoolRecord> {
        &self.record
    }

    pub(super) fn registry(&self) -> Option<Arc<super::Registry>> {
        self.registry.upgrade()
    }

    pub(super) fn take(&self) -> Place {
        if let Some(index) = self.taken.take() {
            self.cells[index].get_or_init(|| Arc::new(Cell::new(&self.record)));
            return Place::Slot(index);
        }
        let cell = Arc::new(Cell::new(&self.record));
        self.overflow.lock().push(Arc::clone(&cell));
        Place::Overflow(cell)
    }

    pub(super) fn cell<'a>(&'a self, place: &'a Place) -> &'a Arc<Cell> {
        match place {
            // Made by `take`, which answered the index.
            Place::Slot(index) => {
                self.cells[*index].get_or_init(|| Arc::new(Cell::new(&self.record)))
            }
            Place::Overflow(cell) => cell,
        }
    }

    /// Gives a cell back that is no longer out.
    pub(super) fn give_back(&self, place: &Place) {
        match place {
            Place::Slot(index) => self.taken.give_back(*index),
            Place::Overflow(cell) => {
                self.overflow
                    .lock()
                    .retain(|known| !Arc::ptr_eq(known, cell));
            }
        }
    }

    /// Every cell that was ever out and may be so now.
    pub(super) fn cells(&self) -> Vec<Arc<Cell>> {
        let mut cells: Vec<_> = self
            .cells
            .iter()
            .filter_map(OnceLock::get)
            .cloned()
            .collect();
        cells.extend(self.overflow.lock().iter().cloned());
        cells
    }
}
