//! When names were last read from debug information.
//!
//! Responsible for a stamp that tells work of ours from work of the user: reading names keeps a
//! processor busy, and on some platforms a lock that a walk of the stack needs. Not responsible for
//! the names.

// Statics, which loom's atomics cannot be.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;

static STAMPS: Stamps = Stamps::new();

/// From when, and until when: the latter is zero while names are being read.
struct Stamps {
    from: AtomicU64,
    to: AtomicU64,
}

/// Stands on the stack while names are being read.
#[must_use]
pub(super) struct Naming(());

impl Naming {
    pub(super) fn begins() -> Self {
        STAMPS.begins(Moment::now());
        Self(())
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        STAMPS.ends(Moment::now());
    }
}

/// For how much of the latest `time` names were being read, as far as is remembered.
pub(crate) fn named_for(time: Duration, now: Moment) -> Duration {
    STAMPS.within(time, now)
}

impl Stamps {
    const fn new() -> Self {
        Self {
            from: AtomicU64::new(0),
            to: AtomicU64::new(0),
        }
    }

    fn begins(&self, now: Moment) {
        /// One stack right after the other is one piece of work.
        const SAME: Duration = Duration::from_millis(100);
        let before = Moment::from_nanos(self.to.load(Ordering::Relaxed));
        if before.is_none_or(|before| now.since(before) > SAME) {
            self.from.store(now.as_nanos(), Ordering::Relaxed);
        }
        self.to.store(0, Ordering::Relaxed);
    }

    fn ends(&self, now: Moment) {
        self.to.store(now.as_nanos(), Ordering::Relaxed);
    }

    fn within(&self, time: Duration, now: Moment) -> Duration {
        let Some(from) = Moment::from_nanos(self.from.load(Ordering::Relaxed)) else {
            return Duration::ZERO;
        };
        let to = Moment::from_nanos(self.to.load(Ordering::Relaxed)).unwrap_or(now);
        let before = now.since(to).min(time);
        now.since(from).min(time).saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000).expect("not zero")
    }

    #[test]
    fn what_was_spent_on_names_is_told_from_the_rest_of_the_time() {
        let stamps = Stamps::new();
        let within = |time, now| {
            let time = Duration::from_millis(time);
            stamps.within(time, at(now)).as_millis()
        };
        assert_eq!(within(500, 1_000), 0, "never");
        stamps.begins(at(1_000));
        assert_eq!(within(500, 1_300), 300, "it goes on");
        stamps.ends(at(1_400));
        stamps.begins(at(1_450));
        stamps.ends(at(1_900));
        assert_eq!(within(2_000, 2_500), 900, "two pieces in a row are one");
        assert_eq!(within(800, 2_500), 200, "a part of it is that long ago");
        assert_eq!(within(500, 2_500), 0, "all of it is");
        stamps.begins(at(5_000));
        assert_eq!(within(9_000, 5_010), 10, "the latest alone is remembered");
    }
}
