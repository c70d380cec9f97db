//! Pools as metrics, through the [`metrics`](https://docs.rs/metrics) facade.
//!
//! Behind the feature `metrics`. A guest of this crate: it uses only the names that `lib.rs` exports.
//! The exporter is the user's; the names are OpenTelemetry's for connection pools where it has one,
//! and begin with `leaktrace.` where it has none. `docs/monitoring/` has alerts, recording rules and a
//! dashboard for Prometheus. Not responsible for counting: gauges and counters are read from what the
//! crate knows anyway, and the two histograms are fed by a
//! [`CheckoutObserver`](crate::CheckoutObserver).
//!
//! - [`Metrics`]: publishes the pools of a monitor. Start here.
//! - [`MetricsOptions`]: routes and sites as labels, another recorder.
//! - [`METRICS`]: every metric, with its unit and its labels.
//! - [`BUCKETS`]: for the histograms.

mod events;
#[cfg(feature = "kit")]
mod health;
mod labels;
mod names;
mod outlet;
mod publish;

pub use self::names::{BUCKETS, METRICS, Metric, MetricKind};
pub use self::publish::{Metrics, MetricsOptions};
