//! Since when a scope is being polled, and when it last was.
//!
//! Responsible for two atomics that any thread may read at any time. Not responsible for what a
//! late poll means: the judge compares them with the probe.
//!
//! The *beginning* of a poll is stamped, not its end: whatever a poll uses, it uses after it began.
//! So a holder whose last use is later than the stamp has not been polled since, and one clock read
//! a poll is enough to tell.

use crate::clock::Moment;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Stamps of the polls of one scope, also where several tasks carry it at once.
pub(super) struct Polls {
    /// Low bits: how many threads are inside a poll. High bits: since when there has been one.
    /// One word, so that a poll that ends cannot wipe out the stamp of one that begins.
    inside: AtomicU64,
    /// When the latest poll began; zero before the first.
    latest: AtomicU64,
}

/// Room for 1 023 polls at once, more than there are threads; the stamp is exact to a microsecond.
const COUNT: u64 = (1 << 10) - 1;

impl Polls {
    pub(super) fn new() -> Self {
        Self {
            inside: AtomicU64::new(0),
            latest: AtomicU64::new(0),
        }
    }

    pub(super) fn enter(&self, now: Moment) {
        self.latest.store(now.as_nanos(), Ordering::Relaxed);
        let mut seen = self.inside.load(Ordering::Relaxed);
        loop {
            let next = if seen & COUNT == 0 {
                (now.as_nanos() & !COUNT) + 1
            } else {
                seen + 1
            };
            match self.inside.compare_exchange_weak(
                seen,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    pub(super) fn exit(&self) {
        self.inside.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn inside_since(&self) -> Option<Moment> {
        let packed = self.inside.load(Ordering::Relaxed);
        (packed & COUNT != 0)
            // The process may be younger than the stamp is precise: the count keeps it from zero.
            .then(|| Moment::from_nanos((packed & !COUNT).max(1)))
            .flatten()
    }

    pub(super) fn latest(&self) -> Option<Moment> {
        Moment::from_nanos(self.latest.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Moment {
        Moment::from_nanos(micros * 1_024).expect("not zero")
    }

    #[test]
    fn nothing_is_known_before_the_first_poll() {
        let polls = Polls::new();
        assert_eq!(polls.inside_since(), None);
        assert_eq!(polls.latest(), None);
    }

    #[test]
    fn a_poll_is_inside_until_it_returns() {
        let polls = Polls::new();
        polls.enter(at(5));
        assert_eq!(polls.inside_since(), Some(at(5)));
        polls.exit();
        assert_eq!(polls.inside_since(), None);
        assert_eq!(polls.latest(), Some(at(5)));
        polls.enter(at(9));
        assert_eq!(polls.inside_since(), Some(at(9)), "the stamp is renewed");
        assert_eq!(polls.latest(), Some(at(9)));
    }

    #[test]
    fn a_short_poll_elsewhere_does_not_hide_a_long_one() {
        let polls = Polls::new();
        polls.enter(at(5));
        for start in 6..20 {
            polls.enter(at(start));
            polls.exit();
        }
        assert_eq!(polls.inside_since(), Some(at(5)));
        polls.exit();
        assert_eq!(polls.inside_since(), None);
    }

    #[test]
    fn the_first_microsecond_of_the_process_is_a_time_too() {
        let polls = Polls::new();
        polls.enter(Moment::from_nanos(1).expect("not zero"));
        assert!(polls.inside_since().is_some());
    }
}
