//! Every metric: its name, unit and labels, in one table.
//!
//! Responsible for the table and for nothing that happens with it.

use ::metrics::Unit;

/// Bounds in seconds for the histograms `wait_time` and `use_time`.
///
/// Those that OpenTelemetry advises for `db.client.operation.duration`, and 30 s, sqlx's own acquire
/// timeout. A wait of nothing falls into the first.
pub const BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// The value of the moment of [`Metrics::publish`](super::Metrics::publish).
    Gauge,
    /// Every checkout.
    Histogram,
}

/// One metric, as it is described to the recorder.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// Its name in the facade. Prometheus has `_` for `.`, and with recommended naming unit and
    /// `_total` at the end.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Its unit.
    pub unit: Unit,
    /// Its labels, without those that are there only when asked for.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// The label with the pool's name, on everything but [`CANCELLED`].
pub(super) const POOL: &str = "db.client.connection.pool.name";
pub(super) const STATE: &str = "db.client.connection.state";
/// On `use_time`, when asked for.
pub(super) const ROUTE: &str = "route";
pub(super) const SITE: &str = "site";

macro_rules! metrics {
    ($($(#[$gate:meta])* $id:ident = $name:literal, $kind:ident, $unit:ident, [$($label:expr),*], $help:literal;)+) => {
        $($(#[$gate])* pub(super) const $id: &Metric = &Metric {
            name: $name,
            kind: MetricKind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
        };)+

        /// Every metric that is published.
        pub const METRICS: &[&Metric] = &[$($(#[$gate])* $id,)+];
    };
}

metrics! {
    COUNT = "db.client.connection.count", Gauge, Count, [POOL, STATE],
        "Open connections: idle, or used (held, on their way back, being opened or tested, or out through the raw pool)";
    MAX = "db.client.connection.max", Gauge, Count, [POOL],
        "The most connections the pool may have, its overflow included";
    IDLE_MIN = "db.client.connection.idle.min", Gauge, Count, [POOL],
        "How many connections the pool keeps open (min_connections)";
    IDLE_MAX = "db.client.connection.idle.max", Gauge, Count, [POOL],
        "How many connections may stay idle: the most, without the overflow";
    PENDING = "db.client.connection.pending_requests", Gauge, Count, [POOL],
        "Acquires that wait because every connection is in use";
    TIMEOUTS = "db.client.connection.timeouts", Counter, Count, [POOL],
        "Acquires that failed because no connection was free in time";
    WAIT_TIME = "db.client.connection.wait_time", Histogram, Seconds, [POOL],
        "How long acquires waited that got a connection; 0 when one was there at once";
    USE_TIME = "db.client.connection.use_time", Histogram, Seconds, [POOL],
        "How long connections were held, from the grant to the drop of the guard";
    FINDINGS = "leaktrace.findings", Counter, Count, [POOL, "kind", "severity"],
        "Findings that were said";
    UTILIZATION = "leaktrace.utilization", Gauge, Percent, [POOL],
        "Used connections, as a part of the most there may be: 0 to 1";
    OVERFLOW = "leaktrace.overflow", Gauge, Count, [POOL],
        "Open connections beyond those that stay";
    OLDEST_HOLD = "leaktrace.oldest_hold_seconds", Gauge, Seconds, [POOL],
        "How long the oldest holder has had its connection; 0 at detail off, and without those that are never reported";
    RETURNING = "leaktrace.returning", Gauge, Count, [POOL],
        "Connections on their way back to the pool";
    UNTRACKED = "leaktrace.untracked", Gauge, Count, [POOL],
        "Connections that nobody is seen to hold for a second: used through the raw pool, or lost";
    ORPHANED = "leaktrace.orphaned", Counter, Count, [POOL],
        "Connections given up while their backend may still run on the server";
    CONNECT_ERRORS = "leaktrace.connect_errors", Counter, Count, [POOL],
        "Errors of connecting: of acquires, and of attempts of leaktrace while acquires wait or time out though places are left";
    ROLLBACKS = "leaktrace.rollbacks", Counter, Count, [POOL, "cause"],
        "Transactions that were rolled back, by why";
    CANCELLED = "leaktrace.cancelled", Counter, Count, ["phase"],
        "Checkouts whose request was cancelled, by what ran on them";
    #[cfg(feature = "kit")]
    HEALTHY = "leaktrace.healthy", Gauge, Count, [POOL],
        "1 when the pool was well the last time somebody asked (the database answered, or the pool was busy), else 0";
    #[cfg(feature = "kit")]
    HEALTH_FAILURES = "leaktrace.health_failures", Gauge, Count, [POOL],
        "How many times in a row it was not";
}
