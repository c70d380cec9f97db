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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use futures_core::future::BoxFuture;

    use super::*;
    use crate::clock::{Moment, Stops};
    use crate::config::Unwinder;
    use crate::registry::testimony::{Answer, Question};
    use crate::registry::{Attempt, Begun, Gauges, Lease, Limits, Reached, Registry, Word};

    struct Fixed(u32);

    impl Gauges for Fixed {
        fn identity(&self) -> usize {
            1
        }
        fn max(&self) -> u32 {
            self.0
        }
        fn min(&self) -> u32 {
            0
        }
        fn size(&self) -> u32 {
            self.0
        }
        fn idle(&self) -> u32 {
            0
        }
        fn acquire_timeout(&self) -> Duration {
            Duration::from_secs(30)
        }
        fn attempt(&self) -> Attempt {
            Box::pin(std::future::ready(Ok(())))
        }
        fn ask(&self, _: Option<i64>, _: bool, _: Reached) -> BoxFuture<'static, Word> {
            Box::pin(std::future::ready(Word::Unknown))
        }
        fn testify(&self, _: Question) -> BoxFuture<'static, Answer> {
            Box::pin(std::future::pending())
        }
    }

    fn watched(max: u32) -> (Arc<Registry>, Arc<Slots>) {
        let registry = Arc::new(Registry::new(Unwinder::default()));
        let make = |id, _: &[String]| PoolRecord::new(id, "orders", Box::new(Fixed(max)));
        let slots = registry.watch(1, make);
        (registry, slots)
    }

    fn lease(registry: &Registry, slots: &Arc<Slots>) -> Lease {
        registry.lease(Arc::clone(slots), Begun::bare(), true)
    }

    fn listed(registry: &Registry) -> usize {
        let (limits, stops) = (Limits::default(), Stops::default());
        registry.holders(Moment::now(), &limits, &stops).len()
    }

    #[test]
    fn more_holders_than_cells_are_recorded_like_the_others() {
        let (registry, slots) = watched(2);
        let mut out: Vec<_> = (0..5).map(|_| lease(&registry, &slots)).collect();
        assert_eq!(listed(&registry), 5);
        assert_eq!(slots.record().counts.read(), (5, 0));
        // Given away with its permit, it keeps its cell.
        let mut leaked = out.remove(0);
        leaked.leak();
        drop(leaked);
        // A return has a limit wherever its cell is.
        out[3].release(true);
        assert_eq!(slots.record().counts.read(), (4, 1));
        let (stuck, next) = slots.look_at_returns(Moment::now());
        assert!(stuck.is_empty() && next.is_some());
        drop(out);
        assert_eq!(listed(&registry), 1, "the leaked one");
        assert_eq!(slots.record().counts.read(), (1, 0));
        assert!(slots.overflow.lock().is_empty());
        drop((lease(&registry, &slots), lease(&registry, &slots)));
        assert_eq!(listed(&registry), 1);
    }

    #[test]
    fn a_cell_that_is_used_again_shows_nothing_of_its_last_holder() {
        let (registry, slots) = watched(1);
        let first = lease(&registry, &slots);
        let (id, cell) = (first.id(), Arc::clone(first.cell()));
        cell.doom(true);
        cell.on_backend(7);
        drop(first);
        let second = lease(&registry, &slots);
        assert!(Arc::ptr_eq(&cell, second.cell()), "the same cell");
        assert_ne!(second.id(), id);
        assert!(!cell.is_doomed());
        assert_eq!(cell.backend(), None);
        assert!(cell.seen(id).is_none());
        assert!(
            cell.claim(id, 1).is_none(),
            "a late finding hits nobody else"
        );
    }

    #[test]
    fn a_holder_takes_less_than_a_kibibyte_and_ten_thousand_are_copied_in_no_time() {
        assert!(size_of::<Cell>() + size_of::<OnceLock<Arc<Cell>>>() <= 1024);
        let (registry, slots) = watched(10_000);
        let out: Vec<_> = (0..10_000).map(|_| lease(&registry, &slots)).collect();
        let start = Instant::now();
        assert_eq!(listed(&registry), out.len());
        let copied = start.elapsed();
        println!("{} holders copied in {copied:?}", out.len());
        // A bound that holds on a busy machine, without optimisation.
        assert!(copied < Duration::from_secs(20), "{copied:?}");
    }
}
