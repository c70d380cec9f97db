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
    /// The earliest there is.
    pub(crate) const FIRST: Self = Self(1);

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

    /// The moment so long ago; the earliest there is where that was before it.
    pub(crate) fn before(self, by: Duration) -> Self {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(by).max(Self::FIRST.0))
    }

    /// Where this moment lies on the wall clock as it stood when the process started.
    pub(crate) fn wall(self) -> SystemTime {
        anchor().wall + Duration::from_nanos(self.0)
    }
}

/// A duration as a person reads it: `850 µs`, `305 ms`, `41.3 s`, `3 min`, `2.5 h`.
pub(crate) fn span(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs_f64();
    match millis {
        0 => format!("{} µs", duration.as_micros()),
        1..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{seconds:.1} s"),
        120_000..7_200_000 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// The time of day in UTC: `02:41:07`.
pub(crate) fn time_of_day(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.get(11..19).unwrap_or(&text).to_string()
}

#[cfg(feature = "json")]
pub(crate) mod json {
    //! Durations are written as milliseconds, under a name that says so; times as RFC 3339.

    use std::time::{Duration, SystemTime};

    use serde::Serializer;

    pub(crate) fn millis<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn maybe_millis<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => millis(duration, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn timestamp<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_millis(*time))
    }

    pub(crate) fn maybe_timestamp<S: Serializer>(
        time: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => timestamp(time, to),
            None => to.serialize_none(),
        }
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
    fn durations_are_written_for_people() {
        for (duration, text) in [
            (Duration::from_micros(850), "850 µs"),
            (Duration::from_millis(305), "305 ms"),
            (Duration::from_millis(41_340), "41.3 s"),
            (Duration::from_secs(180), "3 min"),
            (Duration::from_secs(9000), "2.5 h"),
        ] {
            assert_eq!(span(duration), text);
        }
    }

    #[test]
    fn now_never_goes_back_and_is_never_zero() {
        let first = Moment::now();
        assert!(first.as_nanos() > 0);
        assert!(Moment::now() >= first);
    }
}
