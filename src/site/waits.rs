//! For how long a walk of the stack had to wait.
//!
//! Responsible for telling work of ours from work of the user: the walk that works everywhere shares
//! a lock with the reading of names, which may take a second. Not responsible for either.

// Statics, which loom's atomics cannot be.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;

static WALKS: Walks = Walks::new();

/// The walk that is under way, and the latest that took long.
struct Walks {
    /// Zero while there is none. Of several at once, the first.
    since: AtomicU64,
    from: AtomicU64,
    to: AtomicU64,
}

/// Stands on the stack during a walk that may have to wait.
#[must_use]
pub(super) struct Walk {
    began: Moment,
    is_first: bool,
}

impl Walk {
    pub(super) fn begins() -> Self {
        let began = Moment::now();
        let is_first = WALKS.begins(began);
        Self { began, is_first }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        if self.is_first {
            WALKS.ends(self.began, Moment::now());
        }
    }
}

/// For how much of the latest `time` a walk was waiting, as far as is remembered.
pub(crate) fn walk_waited(time: Duration, now: Moment) -> Duration {
    WALKS.within(time, now)
}

impl Walks {
    /// Above what a walk takes by itself.
    const LONG: Duration = Duration::from_millis(20);

    const fn new() -> Self {
        Self {
            since: AtomicU64::new(0),
            from: AtomicU64::new(0),
            to: AtomicU64::new(0),
        }
    }

    fn begins(&self, now: Moment) -> bool {
        let now = now.as_nanos();
        let first = self
            .since
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        first.is_ok()
    }

    fn ends(&self, began: Moment, now: Moment) {
        if now.since(began) >= Self::LONG {
            self.from.store(began.as_nanos(), Ordering::Relaxed);
            self.to.store(now.as_nanos(), Ordering::Relaxed);
        }
        self.since.store(0, Ordering::Relaxed);
    }

    fn within(&self, time: Duration, now: Moment) -> Duration {
        let read = |stamp: &AtomicU64| Moment::from_nanos(stamp.load(Ordering::Relaxed));
        let overlap = |from: Moment, to: Moment| {
            let before = now.since(to).min(time);
            now.since(from).min(time).saturating_sub(before)
        };
        let under_way = read(&self.since).map_or(Duration::ZERO, |since| overlap(since, now));
        let latest = read(&self.from)
            .zip(read(&self.to))
            .map_or(Duration::ZERO, |(from, to)| overlap(from, to));
        under_way + latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000).expect("not zero")
    }

    #[test]
    fn what_a_walk_waited_is_told_from_the_rest_of_the_time() {
        let walks = Walks::new();
        let within = |time, now| {
            let time = Duration::from_millis(time);
            walks.within(time, at(now)).as_millis()
        };
        assert_eq!(within(500, 1_000), 0, "never");
        assert!(walks.begins(at(1_000)));
        assert!(!walks.begins(at(1_100)), "another one beside it");
        assert_eq!(within(500, 1_300), 300, "it goes on");
        walks.ends(at(1_000), at(1_900));
        assert_eq!(within(2_000, 2_500), 900);
        assert_eq!(within(800, 2_500), 200, "a part of it is that long ago");
        assert_eq!(within(500, 2_500), 0, "all of it is");
        assert!(walks.begins(at(2_600)));
        walks.ends(at(2_600), at(2_601));
        assert_eq!(
            within(2_000, 2_700),
            900,
            "a walk that takes its own time is none"
        );
    }
}
