//! A web service with eight bugs around its database connections, and the reports that name them.
//!
//! ```sh
//! DEBUG_DB_LEAKS=true cargo run --example leaky_service
//! ```
//!
//! It needs no server: the database is SQLite in a temporary file. It sends itself traffic, prints a
//! report for each bug within seconds, and ends after a minute, or after `--seconds N`, or at Ctrl-C.
//! The lines that the reports must name stand below the comments `// BUG:`.

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
use tokio::sync::{Barrier, Mutex, OnceCell, mpsc, oneshot};
use tokio::time::sleep;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::debug_fn;

type Outcome<T> = Result<T, Failure>;

#[derive(Clone)]
struct App {
    /// Ten connections.
    db: SqlitePool,
    /// Two connections each, for the accounts and for the statistics.
    ledger: SqlitePool,
    statistics: SqlitePool,
    partners: Partners,
    monitor: Monitor,
}

// --- eight bugs --------------------------------------------------------------------------------

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
        .get_or_try_init(async || app.statistics.acquire().await.map(Mutex::new))
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

/// Bug 5: a second connection while the first is held, of a pool in which bug 2 has left one.
async fn top_ten(State(app): State<App>) -> Outcome<String> {
    // BUG: held while the statement below waits for another connection of the same pool.
    let mut list = app.statistics.acquire().await?;
    let mut total = 0;
    for id in 1..=10_i64 {
        let sql = "SELECT id FROM articles WHERE id = ?";
        let id: i64 = sqlx::query_scalar(sql)
            .bind(id)
            .fetch_one(&mut *list)
            .await?;
        let sql = "SELECT stock FROM articles WHERE id = ?";
        let stock = sqlx::query_scalar::<_, i64>(sql).bind(id);
        total += stock.fetch_one(&app.statistics).await?;
    }
    Ok(format!("{total} in stock"))
}

/// Bug 6: two of these at once take a connection each, and then each waits for that of the other.
async fn transfer(State(app): State<App>) -> Outcome<String> {
    // BUG: the two connections of a transfer are taken one by one.
    let mut from = app.ledger.acquire().await?;
    let balance = sqlx::query_scalar::<_, i64>("SELECT balance FROM accounts WHERE id = 1");
    let balance = balance.fetch_one(&mut *from).await?;
    app.partners.ask("rates").await?;
    let mut to = app.ledger.acquire().await?;
    let sql = "UPDATE accounts SET balance = balance + ? WHERE id = 2";
    sqlx::query(sql).bind(balance).execute(&mut *to).await?;
    Ok(format!("{balance} transferred"))
}

/// Bug 7: the task takes the connection along, and the answer does not wait for it.
async fn mail(State(app): State<App>, Path(id): Path<i64>) -> Outcome<&'static str> {
    // BUG: still held when the answer has been sent.
    let mut conn = app.db.acquire().await?;
    tokio::spawn(async move {
        app.partners.ask("mail").await?;
        let sql = "UPDATE orders SET state = 'mailed' WHERE id = ?";
        sqlx::query(sql).bind(id).execute(&mut *conn).await?;
        Ok::<_, Failure>(())
    });
    Ok("accepted")
}

/// Bug 8: it computes where it should await. No other request goes on, whatever it holds.
async fn invoice(State(app): State<App>, Path(id): Path<i64>) -> Outcome<String> {
    // BUG: the runtime is blocked below while this is held.
    let mut conn = app.db.acquire().await?;
    let state = sqlx::query_scalar("SELECT state FROM orders WHERE id = ?").bind(id);
    let state: String = state.fetch_one(&mut *conn).await?;
    std::thread::sleep(Duration::from_secs(3)); // Renders a PDF.
    Ok(format!("an invoice for an order that is {state}"))
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

// One worker, as tokio has in a container with one CPU: bug 8 blocks all of them.
#[tokio::main(worker_threads = 1)]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = seconds_to_serve()?;
    log_to_terminal()?;

    let file = std::env::temp_dir().join(format!("leaky_service-{}.sqlite", std::process::id()));
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let sqlx_pool = async |size: u32, acquire_timeout: u64| {
        SqlitePoolOptions::new()
            .max_connections(size)
            .acquire_timeout(Duration::from_secs(acquire_timeout))
            .connect_with(options.clone())
            .await
    };
    let orders = sqlx_pool(10, 4).await?;
    fill(&orders).await?;

    // These lines, and the import of `SqlitePool` above, are all it takes.
    let monitor = Monitor::from_env()?;
    let db = monitor.watch("orders", orders);
    let ledger = monitor.watch("ledger", sqlx_pool(2, 30).await?);
    let statistics = monitor.watch("statistics", sqlx_pool(2, 30).await?);
    let layer = monitor.layer();

    let app = App {
        db: db.clone(),
        ledger,
        statistics,
        partners: Partners::start().await?,
        monitor: monitor.clone(),
    };
    let router = Router::new()
        .route("/orders/{id}", get(order))
        .route("/orders/{id}/ship", post(ship))
        .route("/orders/{id}/mail", post(mail))
        .route("/orders/{id}/invoice", post(invoice))
        .route("/articles/{id}/restock", post(restock))
        .route("/statistics/sales", get(sales))
        .route("/statistics/top-ten", get(top_ten))
        .route("/transfers", post(transfer))
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
    let (seven_said, then_block) = oneshot::channel();
    let traffic = tokio::spawn(send_traffic(url.clone(), then_block));
    let story = tokio::spawn(say_what_next(findings, seven_said, url));
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        () = sleep(seconds) => {}
    }
    story.abort();
    traffic.abort();
    println!("\nClosing the pool \"orders\", for 2 s at most.\n");
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
        "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)".to_string(),
        "INSERT INTO accounts VALUES (1, 100), (2, 0)".to_string(),
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
        // The bank answers two at a time.
        let two = Arc::new(Barrier::new(2));
        let rates = async move || {
            two.wait().await;
            "1.08"
        };
        let router = Router::new()
            .route("/labels", slow(8.0, "label 4711"))
            .route("/supplies", slow(9.0, "ordered"))
            .route("/mail", slow(9.5, "sent"))
            .route("/archive", slow(0.5, "taken"))
            .route("/rates", get(rates));
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

/// Each bug once, then innocent requests, and the last bug when the others have been reported.
async fn send_traffic(url: String, mut others_are_said: oneshot::Receiver<()>) {
    let http = reqwest::Client::new();
    let ask = |request: reqwest::RequestBuilder, id: String| {
        let request = request.header("x-request-id", id);
        async move { request.send().await?.text().await }
    };
    let get = |path: &str| http.get(format!("{url}{path}"));
    let post = |path: &str| http.post(format!("{url}{path}"));

    let _ = ask(get("/statistics/sales"), "s1".into()).await;
    tokio::spawn(ask(get("/statistics/top-ten"), "s2".into()));
    tokio::spawn(ask(post("/archive"), "a1".into()));
    tokio::spawn(ask(post("/transfers"), "t1".into()));
    tokio::spawn(ask(post("/transfers"), "t2".into()));
    tokio::spawn(ask(post("/orders/7/mail"), "m1".into()));
    for round in 1_u64.. {
        tokio::spawn(ask(post("/orders/8/ship"), format!("o{round}")));
        for article in 1..=3 {
            let path = format!("/articles/{article}/restock");
            tokio::spawn(ask(post(&path), format!("r{round}{article}")));
        }
        for id in 1..=200 {
            let _ = ask(get(&format!("/orders/{id}")), format!("g{round}-{id}")).await;
            if others_are_said.try_recv().is_ok() {
                let _ = ask(post("/orders/9/invoice"), "i1".into()).await;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

// --- what it prints besides the reports ---------------------------------------------------------

fn seconds_to_serve() -> Result<Duration, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &*words.iter().map(String::as_str).collect::<Vec<_>>() {
        [] => Ok(Duration::from_secs(60)),
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
            "message" | "report" => write!(out, "{value:?}"),
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
    println!("A service with eight bugs serves on {url} with pools of 10, 2 and 2 connections.");
    match monitor.detail() {
        Detail::Backtrace => {
            println!("It sends itself traffic. The first reports take 1 s to 2 s.\n")
        }
        _ => println!(
            "\nDEBUG_DB_LEAKS is not on: who holds what is known, old holders are not reported. A pool that\n\
             fails somebody is, and then the rest too, for ten minutes. Ask for all that is known now:\n\
             \n    curl {url}/leaks\n\
             \nor switch the reports on, here and now:\n\
             \n    curl -X POST {url}/leaks/backtrace\n\
             \nor from the start:\n\
             \n    DEBUG_DB_LEAKS=true cargo run --example leaky_service\n"
        ),
    }
}

async fn say_what_next(
    mut findings: mpsc::UnboundedReceiver<FindingId>,
    others_are_said: oneshot::Sender<()>,
    url: String,
) {
    // One for each bug, then a moment for the stacks: they are named after the line is out.
    let mut seen = HashSet::new();
    while seen.len() < 7 {
        seen.extend(findings.recv().await);
    }
    let _ = others_are_said.send(());
    while seen.len() < 8 {
        seen.extend(findings.recv().await);
    }
    sleep(Duration::from_secs(1)).await;
    println!(
        "\nThese were 8 reports, one for each bug. Next:\n\
         \n  see who holds what now       curl {url}/leaks\
         \n  read what a report means     docs/findings/\
         \n  fix one, and run again       the lines behind `acquired` and `last used`\
         \n  adopt it in your service     README.md, \"Adoption\"\n\
         \nServing for a minute in all, until Ctrl-C, or for --seconds N. The partners answer after 8 s to\n\
         10 s: `returned late` says so of a report whose connections are back.\n"
    );
}
