//! What is published is what is listed, described and documented, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use leaktrace::Monitor;
use leaktrace::metrics::{BUCKETS, METRICS, Metric, MetricKind, Metrics};

use crate::ground::{Bench, checkout, recorder, silent};
use crate::support::db::sqlite_database;

/// The name that Prometheus shows, with recommended naming.
fn in_prometheus(metric: &Metric) -> String {
    let name = metric.name.replace('.', "_");
    let unit = match metric.unit {
        metrics::Unit::Seconds => "seconds",
        metrics::Unit::Percent => "ratio",
        metrics::Unit::Count => "",
        other => panic!("{other:?} is new here"),
    };
    let mut name = match unit {
        "" => name,
        unit if name.ends_with(unit) => name,
        unit => format!("{name}_{unit}"),
    };
    if metric.kind == MetricKind::Counter {
        name += "_total";
    }
    name
}

fn word(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
        other => panic!("{other:?} is new here"),
    }
}

#[tokio::test]
async fn each_metric_is_there_under_its_name_with_its_type_description_and_labels() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 2).await;
    checkout(&orders).await;
    assert!(bench.metrics.health(&orders).await.ok);
    let page = bench.page().await;
    let mut described = BTreeMap::new();
    let mut types = BTreeMap::new();
    for line in page.0.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        {
            described.insert(name.to_string(), help.to_string());
        }
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            types.insert(name.to_string(), kind.to_string());
        }
    }
    let listed = METRICS
        .iter()
        .map(|metric| (in_prometheus(metric), word(metric.kind).to_string()));
    assert_eq!(types, listed.collect(), "no more, and no less");
    let listed = METRICS
        .iter()
        .map(|metric| (in_prometheus(metric), metric.help.to_string()));
    assert_eq!(described, listed.collect());
    for metric in METRICS {
        let name = in_prometheus(metric);
        let name = match metric.kind {
            MetricKind::Histogram => name + "_count",
            _ => name,
        };
        let expected: BTreeSet<String> = metric
            .labels
            .iter()
            .map(|label| label.replace('.', "_"))
            .collect();
        let samples = page.find(&name, &[]);
        assert!(!samples.is_empty(), "{name}");
        for sample in samples {
            assert_eq!(
                sample.labels.into_keys().collect::<BTreeSet<_>>(),
                expected,
                "{name}"
            );
        }
    }
}

#[test]
fn the_buckets_of_the_docs_are_those_of_the_code() {
    let buckets: Vec<String> = BUCKETS.iter().map(ToString::to_string).collect();
    let line = format!("in seconds: `{}`", buckets.join(", "));
    let page = format!("{}/docs/monitoring/README.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(page).expect("the page is there");
    assert!(page.contains(&line), "docs/monitoring/README.md: {line}");
}

#[test]
fn the_table_of_the_docs_is_the_one_of_the_code() {
    let mut table = String::from(
        "| Metric | In Prometheus | Type | Labels | What it says |\n|---|---|---|---|---|\n",
    );
    for metric in METRICS {
        let labels: Vec<String> = metric
            .labels
            .iter()
            .filter(|label| **label != "db.client.connection.pool.name")
            .map(|label| format!("`{label}`"))
            .collect();
        table += &format!(
            "| `{}` | `{}` | {} | {} | {} |\n",
            metric.name,
            in_prometheus(metric),
            word(metric.kind),
            labels.join(", "),
            metric.help,
        );
    }
    let page = format!("{}/docs/monitoring/README.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(page).expect("the page is there");
    assert!(
        page.contains(&table),
        "docs/monitoring/README.md needs this table:\n\n{table}"
    );
}

#[test]
fn a_monitor_has_one_publisher() {
    let monitor = Monitor::new(silent());
    let first = Metrics::options().recorder(recorder()).of(&monitor);
    let second = Metrics::options().recorder(recorder()).of(&monitor);
    assert!(first.is_ok());
    let error = second.expect_err("it has one").to_string();
    assert!(error.contains("clone"), "{error}");
    let other = Monitor::new(silent());
    assert!(Metrics::options().recorder(recorder()).of(&other).is_ok());
}

#[tokio::test]
async fn a_monitor_that_nobody_publishes_publishes_nothing() {
    let (recorder, twin) = (recorder(), recorder());
    let (exporter, of_twin) = (recorder.handle(), twin.handle());
    let db = sqlite_database().await;
    let use_one = async |monitor: &Monitor| {
        let pool = leaktrace::SqlitePoolOptions::new().monitor(monitor);
        let pool = pool.connect(&db.url).await.expect("a pool");
        drop(pool.begin().await.expect("a transaction"));
        pool.acquire().await.expect("a connection").release().await;
        pool
    };
    // Installed for this thread, which is where everything here runs.
    let guard = metrics::set_default_local_recorder(&recorder);
    use_one(&Monitor::new(silent())).await;
    drop(guard);
    assert_eq!(exporter.render(), "");

    let monitor = Monitor::new(silent());
    let published = Metrics::options().recorder(twin).of(&monitor);
    let _pool = use_one(&monitor).await;
    published.expect("it is the first").publish();
    assert!(of_twin.render().contains("leaktrace_rollbacks_total"));
}
