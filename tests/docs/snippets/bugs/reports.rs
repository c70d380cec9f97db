//! The reports in the pages of findings are those that the bug in the page gives.
//!
//! Each bug is run as a handler of a real service, on PostgreSQL, and what is reported first is
//! compared with the page, but for lines and times. With `LEAKTRACE_WRITE_PAGES=1` it is written into
//! the page, at the limits that a user has.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use leaktrace::{Config, Detail, Finding, Kind, Monitor, PgPool, PgPoolOptions, Severity};
use sqlx::{Connection, PgConnection};
use tokio::net::TcpListener;

use super::super::{Partner, Result};
use crate::mask::masked;
use crate::support::{Capture, TestDb, db::postgres_database, eventually};
use crate::{blocks, read, root};

/// Longer than any of them takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What gets a fresh order wrong: order 7 takes long to commit, order 9 has been paid.
const SCHEMA: &str = "
    CREATE TABLE articles (id BIGINT PRIMARY KEY, stock INT NOT NULL, price BIGINT NOT NULL);
    CREATE TABLE orders (id BIGINT PRIMARY KEY, state TEXT, label TEXT, price BIGINT);
    CREATE TABLE payments (order_id BIGINT PRIMARY KEY);
    INSERT INTO articles VALUES (7, 0, 12);
    INSERT INTO orders (id) SELECT * FROM generate_series(1, 20);
    INSERT INTO payments VALUES (9);
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep(6); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON orders DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.id = 7 AND NEW.state = 'paid') EXECUTE FUNCTION slow()";

fn writing() -> bool {
    std::env::var("LEAKTRACE_WRITE_PAGES").is_ok_and(|value| value == "1")
}

/// The limits that a user has who sets none.
fn defaults() -> Config {
    Config::default().detail(Detail::Backtrace)
}

/// To compare with a page, nobody waits as long as its reader did.
fn sooner() -> Config {
    if writing() {
        return defaults();
    }
    let limit = Duration::from_millis(400);
    defaults().threshold(limit).idle_in_transaction(limit)
}

/// A service with one handler, and what is said of it.
struct Ground {
    monitor: Monitor,
    findings: Capture<Finding>,
    pool: PgPool,
    db: TestDb,
}

impl Ground {
    /// `None` without a server.
    async fn new(config: Config) -> Option<Self> {
        Self::with(config, |options| options).await
    }

    /// With these options besides.
    async fn with(
        config: Config,
        more: impl FnOnce(PgPoolOptions) -> PgPoolOptions,
    ) -> Option<Self> {
        let db = postgres_database().await?;
        // Not through the pool: it would be among those of most connection time.
        run(&db, SCHEMA).await;
        let monitor = Monitor::new(config);
        let findings = Capture::new();
        let kept = findings.clone();
        monitor.add_sink(move |finding: &Finding| kept.push(finding.clone()));
        let options = PgPoolOptions::new().monitor(&monitor).name("orders");
        let pool = more(options.max_connections(10)).connect(&db.url).await;
        Some(Self {
            monitor,
            findings,
            pool: pool.expect("the server is there"),
            db,
        })
    }

    /// Serves `handler` at this route, inside of the layer.
    async fn serve<F>(&self, route: &str, handler: fn(PgPool) -> F) -> SocketAddr
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let answer = async move |State(pool): State<PgPool>| match handler(pool).await {
            Ok(()) => StatusCode::OK,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let app = Router::new()
            .route(route, post(answer))
            .layer(self.monitor.layer())
            .with_state(self.pool.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        addr
    }

    async fn first(&self, kind: Kind) -> Finding {
        let what = format!("a {kind}");
        self.findings
            .wait_for(&what, PATIENCE, |findings| {
                findings
                    .iter()
                    .find(|finding| finding.kind == kind)
                    .cloned()
            })
            .await
    }
}

async fn run(db: &TestDb, sql: &'static str) {
    let conn = PgConnection::connect(&db.url).await;
    let mut conn = conn.expect("the server is there");
    let run = sqlx::raw_sql(sql).execute(&mut conn).await;
    run.expect("tables and rows");
}

/// Sends a request, and reads its answer to the end.
async fn ask(addr: SocketAddr, path: &str) {
    let request = reqwest::Client::new().post(format!("http://{addr}{path}"));
    let answer = request.header("x-request-id", "3f91").send().await;
    let _ = answer.expect("an answer").bytes().await;
}

/// The same, by a client that does not wait.
fn send(addr: SocketAddr, path: &'static str) {
    tokio::spawn(ask(addr, path));
}

/// What a person would see whose service is these files.
fn as_of_a_service(text: &str) -> String {
    text.replace("tests/docs/snippets/bugs.rs", "src/orders.rs")
        .replace("tests/docs/snippets/bugs/reports.rs", "src/main.rs")
        .replace("bugs.rs", "orders.rs")
        .replace("reports.rs", "main.rs")
}

/// Without what depends on the moment of the look: lines, times, ids, counters, the last poll, the
/// server's word.
fn comparable(text: &str) -> String {
    let text = masked(text).replace("returning for TIME", "returning");
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut line = line.to_string();
        while let Some(at) = line.find(" (server") {
            let end = line[at..].find(')').map_or(line.len(), |end| at + end + 1);
            line.replace_range(at..end, "");
        }
        let end = match line.trim_start().split(' ').next() {
            Some("serving") => line.find("; "),
            _ if line.contains("/10 out") => line.find(" pool "),
            _ => None,
        };
        line.truncate(end.unwrap_or(line.len()));
        if !line.contains("last used  never") {
            let line = line.replace(" #1", "").replace(" #2", "");
            lines.push(line.trim_end().to_string());
        }
    }
    lines.join("\n")
}

/// The page's report is this text; or from now on is.
fn compare(kind: Kind, text: &str) {
    let name = format!("docs/findings/{kind}.md");
    let page = read(&name);
    let text = as_of_a_service(text);
    let (_, section) = page
        .split_once("\n## The report\n")
        .expect("it has the section");
    let (_, old) = blocks(section, "text").remove(0);
    if writing() {
        let new = page.replacen(&old, &format!("{}\n", text.trim_end()), 1);
        return std::fs::write(root().join(&name), new).expect("the page can be written");
    }
    assert_eq!(
        comparable(&old),
        comparable(&text),
        "{name} shows another report; LEAKTRACE_WRITE_PAGES=1 writes it anew. In full:\n{text}"
    );
}

/// Runs a bug for one request, and compares the first finding of that kind with its page.
async fn reported<F>(
    kind: Kind,
    config: Config,
    (route, path): (&str, &'static str),
    bug: fn(PgPool) -> F,
) where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let Some(ground) = Ground::new(config).await else {
        return;
    };
    let addr = ground.serve(route, bug).await;
    send(addr, path);
    let finding = ground.first(kind).await;
    compare(kind, &finding.to_string());
}

#[tokio::test]
async fn held_too_long() {
    let bug = |pool| async move { super::held_too_long(&pool, &Partner, 7).await };
    reported(
        Kind::HeldTooLong,
        sooner(),
        ("/articles/{id}/restock", "/articles/7/restock"),
        bug,
    )
    .await;
}

#[tokio::test]
async fn idle_in_transaction() {
    let bug = |pool| async move { super::idle_in_transaction(&pool, &Partner, 8).await };
    reported(
        Kind::IdleInTransaction,
        sooner(),
        ("/orders/{id}/ship", "/orders/8/ship"),
        bug,
    )
    .await;
}

#[tokio::test]
async fn outlived_request() {
    let bug = |pool| async move { super::outlived_request(pool, Partner, 8).await.map(drop) };
    reported(
        Kind::OutlivedRequest,
        defaults(),
        ("/orders/{id}/label", "/orders/8/label"),
        bug,
    )
    .await;
}

#[tokio::test]
async fn returned_late() {
    let Some(ground) = Ground::new(sooner()).await else {
        return;
    };
    if !writing() {
        run(&ground.db, "DELETE FROM orders WHERE id > 3").await;
    }
    let handler = |pool| async move { super::returned_late(&pool, &Partner).await };
    let addr = ground.serve("/archive", handler).await;
    send(addr, "/archive");
    let held = ground.first(Kind::HeldTooLong).await;
    let back = ground.first(Kind::ReturnedLate).await;
    assert_eq!(held.id, back.id);
    compare(back.kind, &format!("{held}\n\n{back}"));
}

/// Ten requests that each have a connection want a second one, and two more wait in front of them.
#[tokio::test]
async fn exhausted() {
    let patience = Duration::from_secs(4);
    let Some(ground) = Ground::with(defaults(), |options| options.acquire_timeout(patience)).await
    else {
        return;
    };
    let handler = |pool| async move { super::exhausted(&pool, 7).await };
    let addr = ground.serve("/orders/{id}/price", handler).await;
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(ground.pool.acquire().await.expect("one of ten"));
    }
    for _ in 0..12 {
        send(addr, "/orders/7/price");
    }
    eventually("all wait", PATIENCE, async || {
        ground.pool.status().waiting == 12
    })
    .await;
    drop(all);
    // What was said before: that twelve wait for those of this test.
    let deadlock = |finding: &&Finding| {
        let causes = finding.causes.iter();
        let mut causes = causes.map(|cause| cause.kind.as_str());
        finding.kind == Kind::Exhausted && causes.any(|cause| cause == "deadlock")
    };
    let findings = &ground.findings;
    let finding = findings
        .wait_for("a deadlock", PATIENCE, |findings| {
            findings.iter().find(deadlock).cloned()
        })
        .await;
    compare(finding.kind, &finding.to_string());
    let over = findings
        .wait_for("its end", PATIENCE, |findings| {
            let mut findings = findings.iter();
            findings
                .find(|finding| {
                    finding.kind == Kind::Exhausted && finding.severity == Severity::Info
                })
                .cloned()
        })
        .await;
    assert!(over.headline.contains("is no longer exhausted"), "{over}");
}

#[tokio::test]
async fn dirty_return() {
    let bug = |pool| async move { super::dirty_return(&pool, 13).await };
    reported(
        Kind::DirtyReturn,
        defaults(),
        ("/orders/{id}/pay", "/orders/13/pay"),
        bug,
    )
    .await;
}

#[tokio::test]
async fn lost_writes() {
    let bug = |pool| async move { super::lost_writes(&pool, 9).await };
    reported(
        Kind::LostWrites,
        defaults(),
        ("/orders/{id}/pay", "/orders/9/pay"),
        bug,
    )
    .await;
}

#[tokio::test]
async fn commit_unknown() {
    let bug = |pool| async move { super::commit_unknown(&pool, 7).await };
    reported(
        Kind::CommitUnknown,
        defaults(),
        ("/orders/{id}/pay", "/orders/7/pay"),
        bug,
    )
    .await;
}

#[tokio::test]
async fn stuck_return() {
    let limit = match writing() {
        true => Duration::from_secs(5),
        false => Duration::from_millis(200),
    };
    let Some(ground) = Ground::with(defaults(), |options| options.return_limit(limit)).await else {
        return;
    };
    let many = "INSERT INTO orders (id) SELECT * FROM generate_series(21, 5000)";
    run(&ground.db, many).await;
    let handler = |pool| async move { super::stuck_return(&pool).await };
    let addr = ground.serve("/statistics", handler).await;
    ask(addr, "/statistics").await;
    let finding = ground.first(Kind::StuckReturn).await;
    compare(finding.kind, &finding.to_string());
}

#[tokio::test]
async fn close_blocked() {
    let Some(ground) = Ground::new(defaults()).await else {
        return;
    };
    let pool = Arc::new(ground.pool.clone());
    tokio::spawn(async move { super::close_blocked(&pool).await });
    let finding = ground.first(Kind::CloseBlocked).await;
    compare(finding.kind, &finding.to_string());
}
