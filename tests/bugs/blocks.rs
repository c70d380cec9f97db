//! A handler that computes where it should await.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use leaktrace::{Finding, SqlitePool};

use crate::at;
use crate::bench::{PATIENCE, assert_names};
use crate::service::{Ground, THRESHOLD, ask};
use crate::support::eventually::eventually_blocking;

const READ: &str = "SELECT state FROM orders WHERE id = 7";

fn render() {
    std::thread::sleep(THRESHOLD * 4);
}

async fn invoice(State(pool): State<SqlitePool>) {
    let mut conn = pool.acquire().await.expect("free");
    let read = sqlx::query(READ);
    read.execute(&mut *conn).await.expect("a row");
    render();
}

async fn invoice_beside(State(pool): State<SqlitePool>) {
    let read = sqlx::query(READ);
    read.execute(&pool).await.expect("a row");
    tokio::task::spawn_blocking(render).await.expect("no panic");
}

/// What is said of this handler on a runtime of so many workers.
fn said_of(
    workers: usize,
    app: Router<SqlitePool>,
    until: impl Fn(&[Finding]) -> bool,
) -> Vec<Finding> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .expect("a runtime");
    let (ground, addr) = runtime.block_on(async {
        let ground = Ground::new(2).await;
        let addr = ground.serve(app).await;
        (ground, addr)
    });
    let request = runtime.spawn(async move { ask(addr, "POST /orders/7/invoice", "r8").await });
    eventually_blocking("said", PATIENCE, || until(&ground.bench.findings.all()));
    let said = ground.bench.findings.all();
    let answer = runtime.block_on(request).expect("no panic");
    assert!(answer.contains("200"), "{answer}");
    match said.is_empty() {
        true => runtime.block_on(ground.silent()),
        false => runtime.shutdown_timeout(Duration::from_secs(1)),
    }
    said
}

#[test]
fn a_blocking_call_with_a_connection_in_hand() {
    let app = Router::new().route("/orders/{id}/invoice", post(invoice));
    let said = said_of(1, app, |findings| !findings.is_empty());
    assert_names(
        &said[0].to_string(),
        &[
            "no worker ran our probe for",
            "POST /orders/{id}/invoice has been inside one poll for",
            "(blocking call)",
            &at!("let mut conn = pool.acquire()"),
            &at!("read.execute(&mut *conn)"),
            "serving    POST /orders/{id}/invoice   request r8",
        ],
    );
    assert!(!said[0].to_string().contains("likely"), "{}", said[0]);
}

/// The others go on, so the runtime is not stalled: only this request is.
#[test]
fn a_blocking_call_on_one_of_four_workers() {
    let app = Router::new().route("/orders/{id}/invoice", post(invoice));
    let said = said_of(4, app, |findings| !findings.is_empty());
    assert_names(
        &said[0].to_string(),
        &[
            &at!("let mut conn = pool.acquire()"),
            "serving    POST /orders/{id}/invoice   request r8; inside one poll for",
            "(blocking call)",
            "likely     its request blocks a thread of the runtime after its last use at blocks.rs:",
            "blocking work belongs on spawn_blocking",
        ],
    );
}

#[test]
fn the_same_beside_the_runtime_is_silent() {
    for workers in [1, 4] {
        let app = Router::new().route("/orders/{id}/invoice", post(invoice_beside));
        said_of(workers, app, |_| true);
    }
}
