//! The lock-free parts of leaktrace under loom: the files that are shipped, in every order there is.

// Each model uses a part of what the crate uses.
#![allow(dead_code, unreachable_pub)]
#![cfg(all(test, loom))]

#[path = "../../src/sync.rs"]
mod sync;

#[path = "../../src/registry/bits.rs"]
mod bits;
#[path = "../../src/registry/counts.rs"]
mod counts;

mod models {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use crate::bits::Bits;
    use crate::counts::Counts;

    /// Two tasks, one cell: it has one owner at a time, and each sees what the other left.
    /// `UnsafeCell` is loom's, which fails the model when two threads are inside at once.
    #[test]
    fn a_cell_has_one_owner_at_a_time() {
        loom::model(|| {
            let shared = Arc::new((Bits::new(1), UnsafeCell::new(0_u32)));
            let other = Arc::clone(&shared);
            let turn = |shared: &(Bits, UnsafeCell<u32>)| {
                if let Some(index) = shared.0.take() {
                    shared.1.with_mut(|value| {
                        // SAFETY: loom checks that nobody else is inside.
                        unsafe { *value += 1 }
                    });
                    shared.0.give_back(index);
                    return 1;
                }
                0
            };
            let one = thread::spawn(move || turn(&other));
            let two = turn(&shared);
            let turns = one.join().expect("no panic") + two;
            let left = shared.1.with(|value| {
                // SAFETY: both are done.
                unsafe { *value }
            });
            assert!(turns >= 1);
            assert_eq!(left, turns);
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
            assert!((1..=2).contains(&(held + returning)), "{held} {returning}");
            assert!(held >= 1);
            walk.join().expect("no panic");
            assert_eq!(counts.read(), (1, 0));
        });
    }
}
