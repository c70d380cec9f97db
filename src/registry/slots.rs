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

use super::cell::Cell;
use super::pool::PoolRecord;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Which of the cells is taken.
///
/// Kept apart from the cells, so that its model is small.
pub(super) struct Bits(Box<[AtomicU64]>);

impl Bits {
    const WORD: usize = 64;

    pub(super) fn new(count: usize) -> Self {
        let words = count.div_ceil(Self::WORD);
        let word = |index: usize| {
            // The bits beyond the end are taken for good.
            let left = count - index * Self::WORD;
            AtomicU64::new(if left < Self::WORD { !0 << left } else { 0 })
        };
        Self((0..words).map(word).collect())
    }

    /// Takes the first one that is free.
    pub(super) fn take(&self) -> Option<usize> {
        for (index, word) in self.0.iter().enumerate() {
            let mut seen = word.load(Ordering::Relaxed);
            while seen != !0 {
                let bit = (!seen).trailing_zeros() as usize;
                // Acquire: what its last owner did to the cell is over.
                let before = word.fetch_or(1 << bit, Ordering::Acquire);
                if before & (1 << bit) == 0 {
                    return Some(index * Self::WORD + bit);
                }
                seen = before;
            }
        }
        None
    }

    /// Gives one back that [`Bits::take`] answered.
    pub(super) fn give_back(&self, index: usize) {
        let bit = 1_u64 << (index % Self::WORD);
        self.0[index / Self::WORD].fetch_and(!bit, Ordering::Release);
    }
}

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
    const MOST: usize = 1024;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_is_taken_once_and_can_be_taken_again() {
        let bits = Bits::new(70);
        let mut taken: Vec<_> = std::iter::from_fn(|| bits.take()).collect();
        assert_eq!(taken.len(), 70);
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken, (0..70).collect::<Vec<_>>());
        bits.give_back(69);
        bits.give_back(3);
        assert_eq!(bits.take(), Some(3));
        assert_eq!(bits.take(), Some(69));
        assert_eq!(bits.take(), None);
    }
}
