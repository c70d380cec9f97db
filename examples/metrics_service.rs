//! An axum service that publishes its pools for Prometheus.
//!
//! ```sh
//! cargo run --example metrics_service
//! curl -s localhost:PORT/metrics      # the port is printed
//! ```
//!
//! It needs no server: the databases are SQLite in a temporary folder. It serves until Ctrl-C, or for
//! `--seconds N`, and asks itself an order now and then, so that there is something to see. To see an
//! alert, hold its pool of four for a while: five times `curl -s localhost:PORT/slow/60 &`. The alerts
//! and the dashboard are in `docs/monitoring/`.

use std::error::Error;
use std::path::Path as Folder;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use leaktrace::metrics::{BUCKETS, Metrics};
use leaktrace::{Monitor, SqlitePool, SqlitePoolOptions};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sqlx::sqlite::SqliteConnectOptions;
use tokio::net::TcpListener;
use tokio::time::sleep;

#[derive(Clone)]
struct Service {
    orders: SqlitePool,
    archive: SqlitePool,
    metrics: Metrics,
    exporter: PrometheusHandle,
}

/// What Prometheus asks for: the values of this moment.
async fn page(State(service): State<Service>) -> String {
    service.metrics.publish();
    service.exporter.render()
}

/// What the orchestrator asks for; the answer becomes a metric too.
async fn ready(State(service): State<Service>) -> StatusCode {
    match service.metrics.health(&service.orders).await.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn order(State(service): State<Service>, Path(id): Path<i64>) -> Outcome<String> {
    let state = sqlx::query_scalar("SELECT state FROM orders WHERE id = ?").bind(id);
    Ok(state.fetch_one(&service.orders).await?)
}

/// Begins, and is told no before it commits: a rollback by drop.
async fn refuse(State(service): State<Service>, Path(id): Path<i64>) -> Outcome<StatusCode> {
    let mut tx = service.orders.begin().await?;
    let sql = "SELECT state FROM orders WHERE id = ?";
    let _: String = sqlx::query_scalar(sql).bind(id).fetch_one(&mut *tx).await?;
    Ok(StatusCode::CONFLICT)
}

/// Holds a connection for so long, as a slow report does.
async fn slow(State(service): State<Service>, Path(seconds): Path<u64>) -> Outcome<StatusCode> {
    let _conn = service.orders.acquire().await?;
    sleep(Duration::from_secs(seconds)).await;
    Ok(StatusCode::OK)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = seconds_to_serve()?;
    tracing_subscriber::fmt()
        .with_env_filter("leaktrace=info,warn")
        .with_writer(std::io::stderr)
        .init();
    // The exporter first. Without recommended naming the units and `_total` are missing in the names.
    let exporter = PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets_for_metric(Matcher::Prefix("db.client.connection.".into()), BUCKETS)?
        .install_recorder()?;
    let monitor = Monitor::from_env()?;
    let metrics = Metrics::of(&monitor)?;

    let folder = std::env::temp_dir().join(format!("metrics_service-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let service = Service {
        orders: open(&monitor, &folder, "orders", 4).await?,
        archive: open(&monitor, &folder, "archive", 2).await?,
        metrics,
        exporter,
    };
    for sql in [
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT NOT NULL)",
        "INSERT INTO orders VALUES (7, 'paid')",
    ] {
        sqlx::query(sql).execute(&service.orders).await?;
    }

    let app = Router::new()
        .route("/orders/{id}", get(order))
        .route("/orders/{id}/refuse", post(refuse))
        .route("/slow/{seconds}", get(slow))
        .layer(monitor.layer())
        // Not inside of the layer: scrapes and probes are no requests of anybody.
        .route("/metrics", get(page))
        .route("/ready", get(ready))
        .with_state(service.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("serving on {url}");
    tokio::select! {
        served = serve(listener, app) => served?,
        asked = ask(&url, &service.archive) => asked?,
        () = look(&service) => {}
        _ = tokio::signal::ctrl_c() => {}
        () = sleep(seconds) => {}
    }
    service.metrics.publish();
    println!("{}", service.exporter.render());
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn open(
    monitor: &Monitor,
    folder: &Folder,
    name: &str,
    connections: u32,
) -> Result<SqlitePool, sqlx::Error> {
    let file = folder.join(name);
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true);
    SqlitePoolOptions::new()
        .name(name)
        .monitor(monitor)
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(3))
        .connect_with(options)
        .await
}

/// A little traffic. Ends with an error only.
async fn ask(url: &str, archive: &SqlitePool) -> Result<(), Box<dyn Error>> {
    let http = reqwest::Client::new();
    loop {
        http.get(format!("{url}/orders/7")).send().await?;
        http.post(format!("{url}/orders/7/refuse")).send().await?;
        archive.acquire().await?.release().await;
        sleep(Duration::from_millis(300)).await;
    }
}

/// Looks after the databases, for those who have no orchestrator that asks.
async fn look(service: &Service) {
    loop {
        for pool in [&service.orders, &service.archive] {
            service.metrics.health(pool).await;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

type Outcome<T> = Result<T, Failure>;

struct Failure(sqlx::Error);

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        tracing::warn!(error = %self.0, "a request failed");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

fn seconds_to_serve() -> Result<Duration, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &*words.iter().map(String::as_str).collect::<Vec<_>>() {
        [] => Ok(Duration::MAX),
        ["--seconds", seconds] => Ok(Duration::from_secs(seconds.parse()?)),
        _ => Err("usage: metrics_service [--seconds N]".into()),
    }
}
