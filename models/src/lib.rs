//! The lock-free parts of leaktrace under loom: the files that are shipped, in every order there is.

// Each model uses a part of what the crate uses.
#![allow(dead_code, unreachable_pub)]
#![cfg(all(test, loom))]

#[path = "../../src/registry/bits.rs"]
mod bits;
#[path = "../../src/registry/counts.rs"]
mod counts;
#[path = "../../src/sync.rs"]
mod sync;

mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread;

    use crate::bits::Bits;
    use crate::counts::Counts;
    use crate::sync::Mutex;

    /// Two tasks, one cell: it has one owner at a time, and each sees what the other left. The value
    /// is read and written apart and without any order of its own: two owners at once, or one that
    /// does not see the last, would lose a turn.
    #[test]
    fn a_cell_has_one_owner_at_a_time_who_sees_what_the_last_one_left() {
        loom::model(|| {
            let shared = Arc::new((Bits::new(1), AtomicU32::new(0)));
            let other = Arc::clone(&shared);
            let turn = |(bits, value): &(Bits, AtomicU32)| {
                let Some(index) = bits.take() else {
                    return 0;
                };
                let seen = value.load(Ordering::Relaxed);
                value.store(seen + 1, Ordering::Relaxed);
                bits.give_back(index);
                1
            };
            let one = thread::spawn(move || turn(&other));
            let two = turn(&shared);
            let turns = one.join().expect("no panic") + two;
            assert!(turns >= 1, "one of them gets it");
            assert_eq!(shared.1.load(Ordering::Relaxed), turns);
        });
    }

    #[test]
    fn two_takers_get_two_cells() {
        loom::model(|| {
            let bits = Arc::new(Bits::new(2));
            let other = Arc::clone(&bits);
            let one = thread::spawn(move || other.take());
            let two = bits.take();
            let one = one.join().expect("no panic");
            assert!(one.is_some() && two.is_some());
            assert_ne!(one, two);
            assert_eq!(bits.take(), None);
        });
    }

    /// Whoever looks finds a checkout held, returning or gone, and never twice.
    #[test]
    fn a_checkout_counts_once_wherever_it_is() {
        loom::model(|| {
            let counts = Arc::new(Counts::default());
            counts.take();
            let moving = Arc::clone(&counts);
            let walk = thread::spawn(move || {
                moving.release();
                moving.end();
            });
            counts.take();
            let (held, returning) = counts.read();
            assert!(
                (1..=2).contains(&(held + returning)),
                "{held} held, {returning} returning"
            );
            assert!(held >= 1);
            walk.join().expect("no panic");
            assert_eq!(counts.read(), (1, 0));
        });
    }

    /// What a cell keeps of a checkout, as far as its end and its finding go. The steps are those of
    /// `registry/cell.rs`, whose other fields loom cannot run.
    #[derive(Clone, Copy, Default)]
    struct Live {
        /// Zero while the cell is free.
        id: u32,
        is_returning: bool,
        claimed: bool,
    }

    struct Pool {
        taken: Bits,
        counts: Counts,
        live: Mutex<Live>,
        /// Ends that were told of the finding about holder 1, by whoever noticed.
        told: AtomicU32,
    }

    impl Pool {
        /// One checkout from its grant to its end: false where no cell is free.
        fn checkout(&self, id: u32) -> bool {
            let Some(index) = self.taken.take() else {
                return false;
            };
            {
                let mut live = self.live.lock();
                assert_eq!(live.id, 0, "nothing is left of the last holder");
                live.id = id;
            }
            self.counts.take();
            // Released.
            let claimed = {
                let mut live = self.live.lock();
                assert_eq!(live.id, id, "nobody else has it");
                live.is_returning = true;
                live.claimed
            };
            self.counts.release();
            if claimed {
                assert_eq!(id, 1, "a late finding hits nobody else");
                self.told.fetch_add(1, Ordering::Relaxed);
            }
            // Back.
            *self.live.lock() = Live::default();
            self.taken.give_back(index);
            self.counts.end();
            true
        }

        /// A finding speaks of holder 1, which was seen before.
        fn claim(&self) {
            let ended = {
                let mut live = self.live.lock();
                let is_its = live.id == 1;
                live.claimed |= is_its;
                !is_its || live.is_returning
            };
            if ended {
                self.told.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A holder is copied, then a finding is made of the copy, while it comes back and the cell goes
    /// out for the next one: its end is told once, and never that of the next.
    #[test]
    fn the_end_of_a_holder_that_was_spoken_of_is_told_once() {
        let mut model = loom::model::Builder::new();
        // Three threads: all orders in which a thread is interrupted no more often than this.
        model.preemption_bound = Some(3);
        model.check(|| {
            let pool = Arc::new(Pool {
                taken: Bits::new(1),
                counts: Counts::default(),
                live: Mutex::new(Live::default()),
                told: AtomicU32::new(0),
            });
            let watched = Arc::clone(&pool);
            let watchdog = thread::spawn(move || {
                let copy = *watched.live.lock();
                let is_overdue = copy.id == 1 && !copy.is_returning;
                if is_overdue {
                    watched.claim();
                }
                is_overdue
            });
            let waits = Arc::clone(&pool);
            let next = thread::spawn(move || waits.checkout(2));
            let first = pool.checkout(1);
            let second = next.join().expect("no panic");
            assert!(first || second, "the cell is free");
            let spoke = watchdog.join().expect("no panic");
            assert_eq!(pool.told.load(Ordering::Relaxed), u32::from(spoke));
            assert_eq!(pool.counts.read(), (0, 0));
        });
    }
}
