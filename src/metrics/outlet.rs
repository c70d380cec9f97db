//! Where metrics go: the recorder that is installed, or one that was given.
//!
//! Responsible for describing and for handles. Not responsible for values.

use std::sync::Arc;

use ::metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString,
    with_recorder,
};

use super::names::{METRICS, Metric, MetricKind};

/// A recorder.
#[derive(Clone, Default)]
pub(super) enum Outlet {
    /// The one that is installed when something is recorded.
    #[default]
    Installed,
    Given(Arc<dyn Recorder + Send + Sync>),
}

/// The value of a label, and which label it is.
pub(super) type Tag<'a> = (&'static str, &'a str);

const METADATA: Metadata<'static> =
    Metadata::new("leaktrace", Level::INFO, Some("leaktrace::metrics"));

impl Outlet {
    fn with<T>(&self, work: impl FnOnce(&dyn Recorder) -> T) -> T {
        match self {
            Outlet::Installed => with_recorder(work),
            Outlet::Given(recorder) => work(&**recorder),
        }
    }

    pub(super) fn describe_all(&self) {
        self.with(|recorder| {
            for metric in METRICS {
                let name = KeyName::from_const_str(metric.name);
                let (unit, help) = (Some(metric.unit), SharedString::const_str(metric.help));
                match metric.kind {
                    MetricKind::Counter => recorder.describe_counter(name, unit, help),
                    MetricKind::Gauge => recorder.describe_gauge(name, unit, help),
                    MetricKind::Histogram => recorder.describe_histogram(name, unit, help),
                }
            }
        });
    }

    pub(super) fn counter(&self, metric: &Metric, tags: &[Tag<'_>]) -> Counter {
        self.with(|recorder| recorder.register_counter(&key(metric, tags), &METADATA))
    }

    pub(super) fn gauge(&self, metric: &Metric, tags: &[Tag<'_>]) -> Gauge {
        self.with(|recorder| recorder.register_gauge(&key(metric, tags), &METADATA))
    }

    pub(super) fn histogram(&self, metric: &Metric, tags: &[Tag<'_>]) -> Histogram {
        self.with(|recorder| recorder.register_histogram(&key(metric, tags), &METADATA))
    }
}

fn key(metric: &Metric, tags: &[Tag<'_>]) -> Key {
    let tags = tags
        .iter()
        .map(|(name, value)| Label::new(*name, (*value).to_string()));
    Key::from_parts(metric.name, tags.collect::<Vec<_>>())
}
