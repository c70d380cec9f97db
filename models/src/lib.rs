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
}
