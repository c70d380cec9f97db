//! A graceful shutdown: requests are waited for, and what is held beyond them is named.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use leaktrace::{Detail, Kind, SqlitePool};
use sqlx::Sqlite;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::at;
use crate::bench::{Bench, PATIENCE, assert_names, millis};
use crate::support::db::{TestDb, sqlite_database};
use crate::support::eventually;
use crate::web::{ask, patient};

#[derive(Clone)]
struct Context {
    pool: SqlitePool,
    gate: Arc<Semaphore>,
}

/// Holds a connection until the gate is opened, and answers then.
async fn works(State(context): State<Context>) -> &'static str {
    let _conn = context.pool.acquire().await.expect("free");
    context.gate.acquire().await.expect("open").forget();
    "done"
}

/// Answers at once; its task keeps the connection until the gate is opened.
async fn keeps(State(context): State<Context>) -> StatusCode {
    let kept = context.pool.acquire().await.expect("free");
    tokio::spawn(async move {
        context.gate.acquire().await.expect("open").forget();
        drop(kept);
    });
    StatusCode::ACCEPTED
}

struct Ground {
    bench: Bench,
    context: Context,
    addr: SocketAddr,
    stop: Arc<Semaphore>,
    server: JoinHandle<()>,
    _db: TestDb,
}

async fn ground() -> Ground {
    // Soon, and all else never: an answer and a task wait for the gate for as long as a test likes.
    let config = patient().detail(Detail::Backtrace).wait(millis(300));
    let bench = Bench::new(config.grace(PATIENCE));
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 2, PATIENCE).await;
    let context = Context {
        pool,
        gate: Arc::new(Semaphore::new(0)),
    };
    let app = Router::new()
        .route("/works", post(works))
        .route("/keeps", post(keeps))
        .layer(bench.monitor.layer())
        .with_state(context.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let stop = Arc::new(Semaphore::new(0));
    let stopped = stop.clone();
    let server = tokio::spawn(async move {
        let until = async move { stopped.acquire().await.expect("open").forget() };
        let server = axum::serve(listener, app).with_graceful_shutdown(until);
        server.await.expect("served");
    });
    Ground {
        bench,
        context,
        addr,
        stop,
        server,
        _db: db,
    }
}

#[tokio::test]
async fn a_request_under_way_is_waited_for_and_then_the_pool_closes_at_once() {
    let ground = ground().await;
    let addr = ground.addr;
    let request = tokio::spawn(async move { ask(addr, "POST /works").await });
    let pool = &ground.context.pool;
    eventually("it holds one", PATIENCE, async || pool.status().held == 1).await;
    ground.stop.add_permits(1);
    assert!(!ground.server.is_finished(), "it waits for the request");
    ground.context.gate.add_permits(1);
    assert!(request.await.expect("no panic").ends_with("done"));
    ground.server.await.expect("no panic");
    pool.close_within(PATIENCE).await.expect("nothing is held");
    let said = ground.bench.findings.all();
    assert!(said.is_empty(), "{}", said[0]);
}

#[tokio::test]
async fn a_holder_beyond_the_last_request_is_named_while_the_pool_cannot_be_closed() {
    let ground = ground().await;
    assert!(ask(ground.addr, "POST /keeps").await.contains("202"));
    ground.stop.add_permits(1);
    ground.server.await.expect("every request is over");
    let pool = ground.context.pool.clone();
    let closed = tokio::spawn(async move { pool.close().await });
    let findings = &ground.bench.findings;
    let blocked = findings
        .wait_for("close_blocked", PATIENCE, |findings| {
            let mut findings = findings.iter();
            findings
                .find(|finding| finding.kind == Kind::CloseBlocked)
                .cloned()
        })
        .await;
    assert_names(
        &blocked.to_string(),
        &[
            &format!("close() at {}", at!("pool.close().await })")),
            &at!("let kept = context.pool.acquire()"),
            "serving    POST /keeps",
        ],
    );
    let leaks = ground.context.pool.close_within(Duration::ZERO).await;
    let leaks = leaks.expect_err("it is still held").to_string();
    assert_names(&leaks, &[&at!("let kept = context.pool.acquire()")]);
    ground.context.gate.add_permits(1);
    closed.await.expect("no panic");
}
