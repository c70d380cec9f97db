//! Requests that wait for each other.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Router};
use leaktrace::{CauseKind, Finding, Kind, Severity, SqlitePool};
use sqlx::Sqlite;
use tokio::sync::Barrier;

use crate::at;
use crate::bench::{PATIENCE, assert_names};
use crate::service::{Ground, ask};
use crate::support::db::sqlite_database;

/// Where two requests meet, each with what it has by then.
type Meet = Extension<Arc<Barrier>>;

fn meet() -> Meet {
    Extension(Arc::new(Barrier::new(2)))
}

fn assert_deadlock(first: &Finding, share: u32) {
    let seen = (first.kind, first.severity);
    assert_eq!(
        seen,
        (Kind::Exhausted, Severity::Warn),
        "nobody has failed yet"
    );
    assert_eq!(first.causes[0].kind, CauseKind::Deadlock);
    assert_eq!(first.causes[0].share, share);
}

async fn transfer(State(pool): State<SqlitePool>, Extension(meet): Meet) {
    let from = pool.acquire().await.expect("free");
    meet.wait().await;
    let to = pool.acquire().await;
    drop((from, to));
}

async fn transfer_with_one(State(pool): State<SqlitePool>, Extension(meet): Meet) {
    let from = pool.acquire().await.expect("free");
    meet.wait().await;
    drop(from);
    let to = pool.acquire().await;
    drop(to);
}

/// Sends both, and lets them hang.
fn both(addr: std::net::SocketAddr, lines: [&'static str; 2]) -> tokio::task::JoinSet<String> {
    let mut requests = tokio::task::JoinSet::new();
    for (line, id) in lines.into_iter().zip(["r6", "r7"]) {
        requests.spawn(async move { ask(addr, line, id).await });
    }
    requests
}

#[tokio::test]
async fn two_requests_that_each_hold_one_and_want_another() {
    let ground = Ground::new(2).await;
    let app = Router::new()
        .route("/transfers", post(transfer))
        .layer(meet());
    let addr = ground.serve(app).await;
    let _requests = both(addr, ["POST /transfers"; 2]);
    let first = ground
        .first_report(&[
            "deadlock 2: every connection is held by somebody who waits for another one",
            "2 × POST /transfers holds one",
            &format!(
                "taken at {}",
                at!("let from = pool.acquire().await.expect(\"free\");")
            ),
            &format!(
                "and waits for another of pool \"orders\" at {}",
                at!("let to = pool")
            ),
            "serving    POST /transfers   2 requests, e.g. r",
        ])
        .await;
    assert_deadlock(&first, 2);
}

#[tokio::test]
async fn two_requests_that_give_the_first_back_are_silent() {
    let ground = Ground::new(2).await;
    let app = Router::new().route("/transfers", post(transfer_with_one));
    let addr = ground.serve(app.layer(meet())).await;
    let answers = both(addr, ["POST /transfers"; 2]).join_all().await;
    assert!(
        answers.iter().all(|answer| answer.contains("200")),
        "{answers:?}"
    );
    ground.silent().await;
}

type Stock = Extension<SqlitePool>;

async fn pay(State(orders): State<SqlitePool>, Extension(stock): Stock, Extension(meet): Meet) {
    let order = orders.acquire().await.expect("free");
    meet.wait().await;
    let article = stock.acquire().await;
    drop((order, article));
}

async fn refund(State(orders): State<SqlitePool>, Extension(stock): Stock, Extension(meet): Meet) {
    let article = stock.acquire().await.expect("free");
    meet.wait().await;
    let order = orders.acquire().await;
    drop((order, article));
}

/// As `pay`: whoever takes them takes them in that order.
async fn refund_in_order(
    State(orders): State<SqlitePool>,
    Extension(stock): Stock,
    Extension(meet): Meet,
) {
    meet.wait().await;
    let order = orders.acquire().await;
    let article = stock.acquire().await;
    drop((order, article));
}

#[tokio::test]
async fn two_pools_taken_in_opposite_orders() {
    let ground = Ground::new(1).await;
    let db = sqlite_database().await;
    let stock = ground.bench.open_pool::<Sqlite>(&db, 1, PATIENCE).await;
    let app = Router::new()
        .route("/pay", post(pay))
        .route("/refund", post(refund))
        .layer(Extension(stock))
        .layer(meet());
    let addr = ground.serve(app).await;
    let _requests = both(addr, ["POST /pay", "POST /refund"]);
    let first = ground
        .first_report(&[
            &format!(
                "POST /pay holds one of pool \"orders\" taken at {}",
                at!("let order = orders.acquire().await.expect")
            ),
            &format!(
                "POST /refund holds one of pool \"orders 2\" taken at {}",
                at!("let article = stock.acquire().await.expect")
            ),
        ])
        .await;
    assert_deadlock(&first, 1);
    let (id, request) = match &*first.pool {
        "orders" => ("r6", "serving    POST /pay   request r6"),
        _ => ("r7", "serving    POST /refund   request r7"),
    };
    assert_names(&first.to_string(), &[id, request]);
}

#[tokio::test]
async fn two_pools_taken_in_the_same_order_are_silent() {
    let ground = Ground::new(1).await;
    let db = sqlite_database().await;
    let stock = ground.bench.open_pool::<Sqlite>(&db, 1, PATIENCE).await;
    let app = Router::new()
        .route("/pay", post(pay))
        .route("/refund", post(refund_in_order))
        .layer(Extension(stock))
        .layer(meet());
    let addr = ground.serve(app).await;
    let answers = both(addr, ["POST /pay", "POST /refund"]).join_all().await;
    assert!(
        answers.iter().all(|answer| answer.contains("200")),
        "{answers:?}"
    );
    ground.silent().await;
}
