//! An axum service with leaktrace as it is meant to be used, and nothing wrong with it.
//!
//! ```sh
//! cargo run --example axum_service
//! ```
//!
//! It needs no server: the database is SQLite in a temporary file. It serves until Ctrl-C, or for
//! `--seconds N`, asks itself one of each request, and prints what leaktrace counted. The order of the
//! layers is explained in `docs/axum.md`.

use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use futures::TryStreamExt;
use leaktrace::{Monitor, Scope, SqlitePool, SqlitePoolOptions};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

type Outcome<T> = Result<T, Failure>;

/// A statement on the pool: the connection is back before the answer is sent.
async fn order(State(db): State<SqlitePool>, Path(id): Path<i64>) -> Outcome<String> {
    let state = sqlx::query_scalar("SELECT state FROM orders WHERE id = ?").bind(id);
    Ok(state.fetch_one(&db).await?)
}

/// What it asks others comes first; the transaction is open for two statements.
async fn ship(State(db): State<SqlitePool>, Path(id): Path<i64>) -> Outcome<StatusCode> {
    sleep(Duration::from_millis(50)).await;
    db.transaction(async |tx| {
        let sql = "UPDATE orders SET state = 'shipped' WHERE id = ?";
        sqlx::query(sql).bind(id).execute(&mut **tx).await?;
        let sql = "INSERT INTO shipments (order_id) VALUES (?)";
        sqlx::query(sql).bind(id).execute(&mut **tx).await
    })
    .await?;
    // A task that goes on after the answer has a scope and a connection of its own.
    let mail = Scope::new("mail").run(async move {
        let sql = "UPDATE shipments SET mailed = 1 WHERE order_id = ?";
        sqlx::query(sql).bind(id).execute(&db).await
    });
    tokio::spawn(mail);
    Ok(StatusCode::ACCEPTED)
}

/// A streamed answer holds its connection until its last byte, so it goes by a label with a threshold
/// of its own.
async fn export(State(db): State<SqlitePool>) -> Body {
    let db = db.labeled("csv export").threshold(Duration::from_secs(300));
    Body::from_stream(async_stream::stream! {
        let mut rows = sqlx::query("SELECT id, state FROM orders").fetch(&db);
        while let Some(row) = rows.try_next().await.transpose() {
            yield row.map(|row| format!("{};{}\n", row.get::<i64, _>(0), row.get::<&str, _>(1)));
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = seconds_to_serve()?;
    tracing_subscriber::fmt()
        .with_env_filter("leaktrace=info,warn")
        .init();
    let file = std::env::temp_dir().join(format!("axum_service-{}.sqlite", std::process::id()));
    let monitor = Monitor::from_env()?;
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let db = SqlitePoolOptions::new()
        .name("orders")
        .monitor(&monitor)
        .max_connections(5)
        .acquire_timeout(Duration::from_secs(3))
        .connect_with(options)
        .await?;
    fill(&db).await?;

    let timeout =
        TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(10));
    let app = Router::new()
        .route("/orders/{id}", get(order))
        .route("/orders/{id}/ship", post(ship))
        .route("/export.csv", get(export))
        // The last one is the outermost. Inside of leaktrace's, what they cut is seen as cut.
        .layer(CatchPanicLayer::new())
        .layer(timeout)
        .layer(monitor.layer().on_exhausted_503())
        .layer(TraceLayer::new_for_http())
        .with_state(db.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("serving on {url}");
    let end = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = sleep(seconds) => {}
        }
    };
    let server = serve(listener, app).with_graceful_shutdown(end);
    let (served, asked) = tokio::join!(server.into_future(), ask(&url));
    served?;
    asked?;

    println!("{:?}\n{}", monitor.requests(), monitor.report());
    // Requests are over; whatever is still held is named instead of waited for in silence.
    if let Err(leaks) = db.close_within(Duration::from_secs(2)).await {
        println!("{leaks}");
    }
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", file.display()));
    }
    Ok(())
}

/// One of each request.
async fn ask(url: &str) -> Result<(), reqwest::Error> {
    let http = reqwest::Client::new();
    for request in [
        http.get(format!("{url}/orders/7")),
        http.post(format!("{url}/orders/7/ship")),
        http.get(format!("{url}/export.csv")),
    ] {
        let answer = request.send().await?;
        let (status, path) = (answer.status(), answer.url().path().to_owned());
        println!("{path}: {status}, {} bytes", answer.bytes().await?.len());
    }
    Ok(())
}

async fn fill(db: &SqlitePool) -> Result<(), sqlx::Error> {
    for sql in [
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT NOT NULL)",
        "CREATE TABLE shipments (order_id INTEGER NOT NULL, mailed INTEGER NOT NULL DEFAULT 0)",
        "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 500) \
         INSERT INTO orders SELECT id, 'paid' FROM n",
    ] {
        sqlx::query(sql).execute(db).await?;
    }
    Ok(())
}

struct Failure(sqlx::Error);

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    /// A 500 as ever: the layer makes a 503 of it when the pool was exhausted.
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
        _ => Err("usage: axum_service [--seconds N]".into()),
    }
}
