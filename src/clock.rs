//! What time it is, and for how long this process did not run.
//!
//! Responsible for [`Moment`] (a monotonic reading that fits an atomic), for its place on the wall
//! clock, and for [`Stops`]: spans in which the whole process stood still. Not responsible for
//! waiting: the watchdog does that.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// A monotonic reading: nanoseconds since this process first asked.
///
/// Never zero, so that an atomic can use zero for "never".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment(u64);

struct Anchor {
    instant: Instant,
    wall: SystemTime,
}

fn anchor() -> &'static Anchor {
    static ANCHOR: OnceLock<Anchor> = OnceLock::new();
    ANCHOR.get_or_init(|| Anchor {
        instant: Instant::now(),
        wall: SystemTime::now(),
    })
}

impl Moment {
    pub(crate) fn now() -> Self {
        let nanos = anchor().instant.elapsed().as_nanos();
        Self(u64::try_from(nanos).unwrap_or(u64::MAX).max(1))
    }

    /// The moment `nanos` after the anchor; `None` for zero.
    pub(crate) fn from_nanos(nanos: u64) -> Option<Self> {
        (nanos != 0).then_some(Self(nanos))
    }

    pub(crate) fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long before `self` the moment `earlier` was; zero if it was later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn after(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// Where this moment lies on the wall clock as it stood when the process started.
    pub(crate) fn wall(self) -> SystemTime {
        anchor().wall + Duration::from_nanos(self.0)
    }
}

/// How long the process has been watched, for the first line of a report.
pub(crate) fn uptime() -> Duration {
    anchor().instant.elapsed()
}

/// The latest spans in which the process did not run: frozen container, laptop lid, SIGSTOP.
///
/// A holder did not hold on to anything while nothing could run, so the judge counts running time
/// only. Without this, every thaw would cause a mass report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stops {
    /// Oldest first, disjoint, at most [`Stops::KEPT`].
    spans: Vec<(Moment, Moment)>,
}

impl Stops {
    const KEPT: usize = 32;

    pub(crate) fn record(&mut self, from: Moment, to: Moment) {
        if self.spans.len() == Self::KEPT {
            self.spans.remove(0);
        }
        self.spans.push((from, to));
    }

    /// The time between the two moments, less what the process stood still.
    pub(crate) fn running_between(&self, from: Moment, to: Moment) -> Duration {
        let stopped: Duration = self
            .spans
            .iter()
            .map(|&(start, end)| end.min(to).since(start.max(from)))
            .sum();
        to.since(from).saturating_sub(stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000).expect("not zero")
    }

    #[test]
    fn a_stop_is_subtracted_only_where_it_overlaps() {
        let mut stops = Stops::default();
        stops.record(at(10), at(30));
        let seconds = |from, to| stops.running_between(at(from), at(to)).as_secs();
        assert_eq!(seconds(1, 5), 4, "before the stop");
        assert_eq!(seconds(5, 35), 10, "around the stop");
        assert_eq!(seconds(20, 35), 5, "from within the stop");
        assert_eq!(seconds(31, 35), 4, "after the stop");
    }

    #[test]
    fn only_the_latest_stops_are_kept() {
        let mut stops = Stops::default();
        for second in 1..=100 {
            stops.record(at(second * 2), at(second * 2 + 1));
        }
        assert_eq!(stops.spans.len(), Stops::KEPT);
    }

    #[test]
    fn now_never_goes_back_and_is_never_zero() {
        let first = Moment::now();
        assert!(first.as_nanos() > 0);
        assert!(Moment::now() >= first);
    }
}
