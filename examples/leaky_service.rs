//! A web service with four bugs that keep database connections out, and the reports that name them.
//!
//! ```sh
//! DEBUG_DB_LEAKS=true cargo run --example leaky_service
//! ```
//!
//! It needs no server: the database is SQLite in a temporary file. It sends itself traffic, prints a
//! report for each bug within seconds, and serves until Ctrl-C, or for `--seconds N`. The lines that
//! the reports must name stand below the comments `// BUG:`.

use std::collections::HashSet;
use std::error::Error;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use futures::TryStreamExt;
use leaktrace::{Detail, Finding, FindingId, Monitor, PoolConnection, Severity, SqlitePool};
use sqlx::Sqlite;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OnceCell, mpsc};
use tokio::time::{sleep, timeout};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::debug_fn;

type Outcome<T> = Result<T, Failure>;

#[derive(Clone)]
struct App {
    db: SqlitePool,
    partners: Partners,
    monitor: Monitor,
}

// --- four bugs ---------------------------------------------------------------------------------

/// Bug 1: the transaction stays open while another company's computer thinks.
async fn ship(State(app): State<App>, Path(id): Path<i64>) -> Outcome<String> {
    // BUG: open until the label is here.
    let mut tx = app.db.begin().await?;
    sqlx::query("UPDATE orders SET state = 'shipping' WHERE id = ?")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    let label = app.partners.ask("labels").await?;
    sqlx::query("UPDATE orders SET state = 'shipped', label = ? WHERE id = ?")
        .bind(&label)
        .bind(id)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(label)
}

/// Bug 2: "a connection of its own makes the report faster". It never comes back.
async fn sales(State(app): State<App>) -> Outcome<String> {
    static OWN: OnceCell<Mutex<PoolConnection<Sqlite>>> = OnceCell::const_new();
    let own = OWN
        // BUG: a static is never dropped.
        .get_or_try_init(async || app.db.acquire().await.map(Mutex::new))
        .await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM orders")
        .fetch_one(&mut **own.lock().await)
        .await?;
    Ok(format!("{count} orders"))
}

/// Bug 3: the guard is a temporary of the `match`, and lives as long as its arms.
async fn restock(State(app): State<App>, Path(id): Path<i64>) -> Outcome<String> {
    let stock = sqlx::query_scalar("SELECT stock FROM articles WHERE id = ?").bind(id);
    // BUG: dropped where the `match` ends, not where the row is here.
    match stock.fetch_one(&mut *app.db.acquire().await?).await? {
        0_i64 => app.partners.ask("supplies").await,
        left => Ok(format!("{left} left")),
    }
}

/// Bug 4: the rows are read no faster than the archive takes them, one at a time.
async fn archive(State(app): State<App>) -> Outcome<String> {
    // BUG: one slow request for each row, while the rows are being read.
    let mut conn = app.db.acquire().await?;
    let mut rows = sqlx::query_scalar::<_, i64>("SELECT id FROM orders").fetch(&mut *conn);
    let mut count = 0;
    while let Some(_id) = rows.try_next().await? {
        app.partners.ask("archive").await?;
        count += 1;
    }
    Ok(format!("{count} archived"))
}

/// No bug: the connection is back before the answer is sent. Never reported.
async fn order(State(app): State<App>, Path(id): Path<i64>) -> Outcome<String> {
    let state = sqlx::query_scalar("SELECT state FROM orders WHERE id = ?")
        .bind(id)
        .fetch_one(&app.db)
        .await?;
    Ok(state)
}

// --- the service, with leaktrace ---------------------------------------------------------------

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = seconds_to_serve()?;
    log_to_terminal()?;

    let file = std::env::temp_dir().join(format!("leaky_service-{}.sqlite", std::process::id()));
    let sqlx_pool = SqlitePoolOptions::new()
        .max_connections(10)
        .acquire_timeout(Duration::from_secs(4))
        .connect_with(
            SqliteConnectOptions::new()
                .filename(&file)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal),
        )
        .await?;
    fill(&sqlx_pool).await?;

    // These three lines, and the import of `SqlitePool` above, are all it takes.
    let monitor = Monitor::from_env()?;
    let db = monitor.watch("orders", sqlx_pool);
    let layer = monitor.layer();

    let app = App {
        db: db.clone(),
        partners: Partners::start().await?,
        monitor: monitor.clone(),
    };
    let router = Router::new()
        .route("/orders/{id}", get(order))
        .route("/orders/{id}/ship", post(ship))
        .route("/articles/{id}/restock", post(restock))
        .route("/reports/sales", get(sales))
        .route("/archive", post(archive))
        .route("/leaks", get(leaks))
        .route("/leaks/{detail}", post(set_detail))
        .layer(layer)
        .with_state(app);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { serve(listener, router).await });

    let findings = count_findings(&monitor);
    say_hello(&monitor, &url);
    let traffic = tokio::spawn(send_traffic(url.clone()));
    let story = tokio::spawn(say_what_next(monitor.detail(), findings, url));
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        () = sleep(seconds) => {}
    }
    story.abort();
    traffic.abort();
    println!("\nClosing the pool, for 2 s at most.\n");
    match db.close_within(Duration::from_secs(2)).await {
        Ok(()) => println!("\nEvery connection is back."),
        Err(leaks) => println!("\n{leaks}"),
    }
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", file.display()));
    }
    Ok(())
}

/// Who holds what at this moment. At any detail but `off`, without waiting for a threshold.
async fn leaks(State(app): State<App>) -> String {
    app.monitor.report().to_string()
}

/// Changes the detail while the service runs: no restart that would destroy the evidence.
async fn set_detail(State(app): State<App>, Path(detail): Path<String>) -> Outcome<String> {
    let detail: Detail = detail.parse()?;
    app.monitor.set_detail(detail);
    Ok(format!("detail {detail}\n"))
}

struct Failure(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}

async fn fill(db: &sqlx::SqlitePool) -> Result<(), sqlx::Error> {
    let rows = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 500)";
    for sql in [
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT NOT NULL, label TEXT)".to_string(),
        "CREATE TABLE articles (id INTEGER PRIMARY KEY, stock INTEGER NOT NULL)".to_string(),
        format!("INSERT INTO orders (id, state) {rows} SELECT id, 'paid' FROM n"),
        format!("INSERT INTO articles (id, stock) {rows} SELECT id, 0 FROM n"),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(db).await?;
    }
    Ok(())
}

// --- the world around it -----------------------------------------------------------------------

/// Services of other companies: real HTTP, on this machine, and slow.
#[derive(Clone)]
struct Partners {
    url: Arc<str>,
    http: reqwest::Client,
}

impl Partners {
    async fn start() -> Result<Self, Box<dyn Error>> {
        let slow = |seconds, answer| {
            get(async move || {
                sleep(Duration::from_secs_f64(seconds)).await;
                answer
            })
        };
        let router = Router::new()
            .route("/labels", slow(6.0, "label 4711"))
            .route("/supplies", slow(8.0, "ordered"))
            .route("/archive", slow(0.5, "taken"));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async { serve(listener, router).await });
        Ok(Self {
            url: url.into(),
            http: reqwest::Client::new(),
        })
    }

    async fn ask(&self, what: &str) -> Outcome<String> {
        let answer = self.http.get(format!("{}/{what}", self.url)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }
}

async fn send_traffic(url: String) {
    let http = reqwest::Client::new();
    let send = |path: String, id: String| {
        let request = match path.starts_with("/orders/") && !path.ends_with("/ship")
            || path.starts_with("/reports")
        {
            true => http.get(format!("{url}{path}")),
            false => http.post(format!("{url}{path}")),
        };
        let request = request.header("x-request-id", id);
        tokio::spawn(async move { request.send().await?.text().await })
    };
    send("/reports/sales".into(), "s1".into());
    send("/archive".into(), "a1".into());
    for round in 1_u64.. {
        send(format!("/orders/{round}/ship"), format!("o{round}"));
        for article in 1..=3 {
            send(
                format!("/articles/{article}/restock"),
                format!("r{round}{article}"),
            );
        }
        for id in 1..=200 {
            send(format!("/orders/{id}"), format!("g{round}-{id}"));
            sleep(Duration::from_millis(50)).await;
        }
    }
}

// --- what it prints besides the reports ---------------------------------------------------------

fn seconds_to_serve() -> Result<Duration, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &*words.iter().map(String::as_str).collect::<Vec<_>>() {
        [] => Ok(Duration::MAX),
        ["--seconds", seconds] => Ok(Duration::from_secs(seconds.parse()?)),
        _ => Err("usage: leaky_service [--seconds N]".into()),
    }
}

/// The line of an event and, below it, the report. Its other fields (`kind`, `id`, `pool`, `held_ms`,
/// `site`, …) say the same for machines: a JSON log has them.
fn log_to_terminal() -> Result<(), Box<dyn Error>> {
    let filter =
        EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new("leaktrace=info,warn"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stdout().is_terminal())
        .fmt_fields(debug_fn(|out, field, value| match field.name() {
            "message" => write!(out, "{value:?}"),
            "report" => writeln!(out, "{value:?}"),
            _ => Ok(()),
        }))
        .init();
    Ok(())
}

/// One message for each report of something bad.
fn count_findings(monitor: &Monitor) -> mpsc::UnboundedReceiver<FindingId> {
    let (sender, receiver) = mpsc::unbounded_channel();
    monitor.add_sink(move |finding: &Finding| {
        if finding.severity >= Severity::Warn {
            let _ = sender.send(finding.id);
        }
    });
    receiver
}

fn say_hello(monitor: &Monitor, url: &str) {
    println!("A service with four bugs serves on {url} with a pool of 10 connections.");
    match monitor.detail() {
        Detail::Backtrace => {
            println!("It sends itself traffic. The first reports take 1 s to 2 s.\n")
        }
        _ => println!(
            "\nDEBUG_DB_LEAKS is not on: who holds what is known, old holders are not reported. Ask for them:\n\
             \n    curl {url}/leaks\n\
             \nor switch the reports on, here and now:\n\
             \n    curl -X POST {url}/leaks/backtrace\n\
             \nor from the start:\n\
             \n    DEBUG_DB_LEAKS=true cargo run --example leaky_service\n"
        ),
    }
}

async fn say_what_next(
    detail: Detail,
    mut findings: mpsc::UnboundedReceiver<FindingId>,
    url: String,
) {
    if detail != Detail::Backtrace {
        return;
    }
    // One for each bug, then a moment for the stacks: they are named after the line is out.
    let mut seen = HashSet::new();
    let _ = timeout(Duration::from_secs(10), async {
        while seen.len() < 4 {
            seen.extend(findings.recv().await);
        }
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    println!(
        "\nThese were {} reports, one for each bug. Next:\n\
         \n  see who holds what now       curl {url}/leaks\
         \n  read what a report means     docs/findings/\
         \n  fix one, and run again       the lines behind `acquired` and `last used`\
         \n  adopt it in your service     README.md, \"Adoption\"\n\
         \nServing until Ctrl-C or --seconds N. The partners answer after 6 s and 8 s: `returned late`\n\
         says so of a report whose connections are back.\n",
        seen.len()
    );
}
