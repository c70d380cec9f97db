//! A monitor whose metrics are scraped, and the page as values.
//!
//! Responsible for the service and for reading its page. Each test has a recorder of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use leaktrace::metrics::{BUCKETS, Metrics, MetricsOptions};
use leaktrace::{Config, Detail, Monitor, SqlitePool, SqlitePoolOptions};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use tokio::net::TcpListener;

use crate::support::TestDb;
use crate::support::db::{open_idle, sqlite_database};

pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Nothing is reported for being old.
pub(crate) fn silent() -> Config {
    Config::default()
        .detail(Detail::Location)
        .threshold(Duration::from_secs(3600))
        .wait(Duration::from_secs(3600))
}

/// One checkout, and its way back.
pub(crate) async fn checkout<DB: sqlx::Database>(pool: &leaktrace::Pool<DB>) {
    let conn = pool.acquire().await.expect("a connection");
    conn.release().await;
}

pub(crate) fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets_for_metric(Matcher::Prefix("db.client.connection.".into()), BUCKETS)
        .expect("buckets")
        .build_recorder()
}

/// A monitor and the address of its page.
pub(crate) struct Bench {
    pub(crate) monitor: Monitor,
    pub(crate) metrics: Metrics,
    url: String,
}

impl Bench {
    pub(crate) async fn new(config: Config) -> Self {
        Self::with(config, Metrics::options()).await
    }

    pub(crate) async fn with(config: Config, options: MetricsOptions) -> Self {
        let monitor = Monitor::new(config);
        let recorder = recorder();
        let exporter = recorder.handle();
        let metrics = options
            .recorder(recorder)
            .of(&monitor)
            .expect("it is the first");
        let page = {
            let metrics = metrics.clone();
            move || async move {
                metrics.publish();
                exporter.render()
            }
        };
        let url = serve(Router::new().route("/metrics", get(page))).await;
        Self {
            monitor,
            metrics,
            url,
        }
    }

    pub(crate) async fn page(&self) -> Page {
        let answer = reqwest::get(format!("{}/metrics", self.url)).await;
        let text = answer.expect("an answer").text().await.expect("a page");
        Page(text)
    }

    /// A pool of its own database, of at most so many connections.
    pub(crate) async fn sqlite(&self, name: &str, most: u32) -> (SqlitePool, TestDb) {
        let db = sqlite_database().await;
        let pool = self.options(name, most);
        (pool.connect(&db.url).await.expect("a pool"), db)
    }

    pub(crate) fn options(&self, name: &str, most: u32) -> SqlitePoolOptions {
        SqlitePoolOptions::new()
            .name(name)
            .monitor(&self.monitor)
            .max_connections(most)
            .acquire_timeout(LONG)
    }

    /// As [`sqlite`](Self::sqlite), of one connection that is open before the pool gets its patience: on
    /// a busy machine opening takes longer than it has.
    pub(crate) async fn impatient(&self, name: &str, patience: Duration) -> (SqlitePool, TestDb) {
        let db = sqlite_database().await;
        let options = sqlx::sqlite::SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(patience)
            .test_before_acquire(false);
        let raw = options.connect_lazy(&db.url).expect("a URL");
        open_idle(&raw, 1).await;
        (self.monitor.watch(name, raw), db)
    }
}

/// Serves for as long as the test's runtime lives.
pub(crate) async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// What a scrape got.
#[derive(Debug)]
pub(crate) struct Page(pub(crate) String);

/// One line of it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Page {
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.0
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(Sample::of)
            .collect()
    }

    /// The only sample of that name with these labels; `le` and the like may be among them.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.find(name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?} in\n{}", self.0);
        found[0].value
    }

    /// Of one pool.
    #[track_caller]
    pub(crate) fn of(&self, pool: &str, name: &str) -> f64 {
        self.value(name, &[(POOL, pool)])
    }

    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Vec<Sample> {
        let mut samples = self.samples();
        samples.retain(|sample| {
            let has = |(key, value): &(&str, &str)| {
                sample.labels.get(*key).is_some_and(|found| found == value)
            };
            sample.name == name && labels.iter().all(has)
        });
        samples
    }

    /// The sum of every sample of that name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.find(name, &[]).iter().map(|found| found.value).sum()
    }
}

pub(crate) const POOL: &str = "db_client_connection_pool_name";
pub(crate) const STATE: &str = "db_client_connection_state";

impl Sample {
    fn of(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, rest) = series.split_once('{').unwrap_or((series, ""));
        let mut labels = BTreeMap::new();
        // No label of these tests has a quote in it.
        for pair in rest.trim_end_matches('}').split("\",") {
            if let Some((key, value)) = pair.split_once("=\"") {
                labels.insert(key.to_string(), value.trim_end_matches('"').to_string());
            }
        }
        Self {
            name: name.to_string(),
            labels,
            value: value.parse().expect("a number"),
        }
    }
}
