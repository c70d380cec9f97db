//! `outlived_request`: the answer is complete, and the checkout is still held.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use leaktrace::{Detail, Finding, Kind, PgPool, Phase, Scope, SqlitePool};
use sqlx::{Postgres, Sqlite};
use tokio::sync::Semaphore;

use crate::at;
use crate::bench::{Bench, PATIENCE, assert_names, millis, quick};
use crate::support::db::{postgres_database, sqlite_database};
use crate::support::eventually;
use crate::support::eventually::eventually_blocking;
use crate::web::{GRACE, ask, serve};

#[derive(Clone)]
struct Context {
    pool: SqlitePool,
    gate: Arc<Semaphore>,
}

/// Moves its transaction into a task that mails somebody.
async fn moves(State(context): State<Context>) -> StatusCode {
    let tx = context.pool.begin().await.expect("free");
    tokio::spawn(async move {
        context.gate.acquire().await.expect("open").forget();
        tx.commit().await.expect("saved");
    });
    StatusCode::ACCEPTED
}

/// The task checks its own out, under its own name.
async fn spawns(State(context): State<Context>) -> StatusCode {
    let job = Scope::new("mail").run(async move {
        let _conn = context.pool.acquire().await.expect("free");
        context.gate.acquire().await.expect("open").forget();
    });
    tokio::spawn(job);
    StatusCode::ACCEPTED
}

/// The task goes on under the name of its request, and checks its own out when that is over.
async fn carries(State(context): State<Context>) -> StatusCode {
    let request = Scope::current().expect("a request");
    tokio::spawn(request.run(async move {
        tokio::time::sleep(GRACE * 2).await;
        let _conn = context.pool.acquire().await.expect("free");
        context.gate.acquire().await.expect("open").forget();
    }));
    StatusCode::ACCEPTED
}

fn config() -> leaktrace::Config {
    quick().detail(Detail::Backtrace).grace(GRACE)
}

fn outlived(findings: &[Finding]) -> Option<Finding> {
    let mut findings = findings.iter();
    findings
        .find(|finding| finding.kind == Kind::OutlivedRequest)
        .cloned()
}

fn app(bench: &Bench, pool: &SqlitePool, gate: &Arc<Semaphore>) -> Router {
    let context = Context {
        pool: pool.clone(),
        gate: gate.clone(),
    };
    Router::new()
        .route("/moves", post(moves))
        .route("/spawns", post(spawns))
        .route("/carries", post(carries))
        .route(
            "/blocks",
            post(|| async { std::thread::sleep(Duration::from_secs(3)) }),
        )
        .layer(bench.monitor.layer())
        .with_state(context)
}

#[tokio::test]
async fn a_task_that_keeps_the_connection_of_its_request_is_named() {
    let bench = Bench::new(config());
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 2, PATIENCE);
    let gate = Arc::new(Semaphore::new(0));
    let addr = serve(app(&bench, &pool, &gate)).await;
    assert!(ask(addr, "POST /moves").await.starts_with("HTTP/1.1 202"));
    let finding = bench
        .findings
        .wait_for("outlived", PATIENCE, outlived)
        .await;
    assert_names(
        &finding.headline,
        &[
            "outlived its request",
            &at!("let tx = context.pool.begin()"),
            "serving POST /moves",
        ],
    );
    assert_names(
        finding.remedy.as_deref().unwrap_or_default(),
        &["moved into a task", "check its own connection out"],
    );
    gate.add_permits(1);
    let back = bench
        .findings
        .wait_for("good news", PATIENCE, |findings| {
            let mut findings = findings.iter();
            findings
                .find(|finding| finding.kind == Kind::ReturnedLate)
                .cloned()
        })
        .await;
    assert_eq!(back.id, finding.id);
}

/// Asks, and waits until the task holds its own for several graces.
async fn stays_silent(line: &str) {
    let bench = Bench::new(config());
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 2, PATIENCE).await;
    let gate = Arc::new(Semaphore::new(0));
    let addr = serve(app(&bench, &pool, &gate)).await;
    assert!(ask(addr, line).await.starts_with("HTTP/1.1 202"));
    eventually("held for long", PATIENCE, async || {
        let holders = bench.monitor.holders();
        holders
            .first()
            .is_some_and(|holder| holder.held_for > GRACE * 4)
    })
    .await;
    assert!(bench.findings.is_empty(), "{:?}", bench.findings.all());
    gate.add_permits(1);
}

#[tokio::test]
async fn a_task_that_checks_its_own_out_is_no_remainder() {
    stays_silent("POST /spawns").await;
}

#[tokio::test]
async fn a_task_that_carries_the_scope_on_and_checks_its_own_out_later_is_no_remainder() {
    stays_silent("POST /carries").await;
}

#[tokio::test]
async fn what_is_on_its_way_back_never_counts() {
    async fn times_out(State(pool): State<PgPool>) -> StatusCode {
        // Sent at its first poll, and runs for longer than a busy machine needs for an answer.
        let slow = sqlx::raw_sql("SELECT pg_sleep(4)").execute(&pool);
        match tokio::time::timeout(millis(300), slow).await {
            Ok(_) => StatusCode::OK,
            Err(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::new(config());
    let pool = bench.open_pool::<Postgres>(&db, 2, PATIENCE).await;
    let app = Router::new().route("/slow", post(times_out));
    let app = app.layer(bench.monitor.layer()).with_state(pool.clone());
    let addr = serve(app).await;
    assert!(ask(addr, "POST /slow").await.starts_with("HTTP/1.1 504"));
    let holders = bench.monitor.holders();
    assert_eq!(holders.len(), 1);
    assert_eq!(holders[0].phase, Phase::Returning);
    eventually("back", PATIENCE, async || {
        bench.monitor.holders().is_empty()
    })
    .await;
    assert!(outlived(&bench.findings.all()).is_none());
}

#[test]
fn it_is_not_said_while_the_runtime_is_blocked() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let bench = Bench::new(config().grace(Duration::from_secs(2)));
    let gate = Arc::new(Semaphore::new(0));
    let (_db, addr) = runtime.block_on(async {
        let db = sqlite_database().await;
        let pool = bench.pool::<Sqlite>(&db, 2, PATIENCE);
        (db, serve(app(&bench, &pool, &gate)).await)
    });
    assert!(runtime.block_on(ask(addr, "POST /moves")).contains("202"));
    let blocks = runtime.spawn(ask(addr, "POST /blocks"));
    let blocked = eventually_blocking("blocked", PATIENCE, || bench.monitor.report().runtime);
    assert_names(&blocked, &["POST /blocks has been inside one poll"]);
    while let Some(_blocked) = bench.monitor.report().runtime {
        assert!(outlived(&bench.findings.all()).is_none());
        std::thread::sleep(millis(20));
    }
    bench
        .findings
        .wait_for_blocking("outlived", PATIENCE, outlived);
    assert!(runtime.block_on(blocks).expect("no panic").contains("200"));
    gate.add_permits(1);
}
