//! What of `in_progress` never goes away.
//!
//! Responsible for telling connections that are being opened or tested from those that are out unseen.
//! Not responsible for counting either: see `pool`.

use std::time::Duration;

use crate::clock::Moment;

/// The lowest `in_progress` of this second and of the one before.
///
/// Under churn `in_progress` is above zero in most samples without any untracked use (opening and
/// testing take time), so only what never goes away counts.
#[derive(Debug, Default)]
pub(super) struct Lows {
    window: Option<(Moment, u32)>,
    before: Option<u32>,
}

impl Lows {
    const WINDOW: Duration = Duration::from_secs(1);

    pub(super) fn observe(&mut self, now: Moment, sample: u32, waiting: u32) -> u32 {
        if waiting > 0 {
            // Whoever waits makes sqlx open and test connections.
            *self = Self::default();
            return 0;
        }
        match &mut self.window {
            Some((start, low)) if now.since(*start) < Self::WINDOW => *low = sample.min(*low),
            Some((_, low)) => {
                self.before = Some(*low);
                self.window = Some((now, sample));
            }
            None => self.window = Some((now, sample)),
        }
        self.before.map_or(0, |before| before.min(sample))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000).expect("not zero")
    }

    #[test]
    fn only_what_stays_for_a_second_is_untracked() {
        let mut lows = Lows::default();
        assert_eq!(lows.observe(at(1), 3, 0), 0, "just seen");
        assert_eq!(lows.observe(at(500), 2, 0), 0);
        assert_eq!(
            lows.observe(at(1100), 3, 0),
            2,
            "two were there all the time"
        );
        assert_eq!(lows.observe(at(1200), 0, 0), 0, "all gone");
    }

    #[test]
    fn nothing_is_untracked_while_somebody_waits() {
        let mut lows = Lows::default();
        lows.observe(at(1), 3, 0);
        assert_eq!(lows.observe(at(1500), 3, 1), 0);
        assert_eq!(lows.observe(at(1600), 3, 0), 0);
        assert_eq!(lows.observe(at(2700), 3, 0), 3);
    }
}
