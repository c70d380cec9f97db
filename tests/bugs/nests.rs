//! A second connection while the first is held.

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use leaktrace::{CauseKind, Kind, Scope, Severity, SqlitePool};

use crate::at;
use crate::service::{Ground, ask};

const READ: &str = "SELECT state FROM orders WHERE id = 7";

async fn price(State(pool): State<SqlitePool>) {
    let mut tx = pool.begin().await.expect("free");
    let read = sqlx::query(READ);
    read.execute(&mut *tx).await.expect("a row");
    let mut second = pool.acquire().await.expect("in time");
    sqlx::query(READ)
        .execute(&mut *second)
        .await
        .expect("a row");
    tx.commit().await.expect("saved");
}

async fn price_with_one(State(pool): State<SqlitePool>) {
    let mut tx = pool.begin().await.expect("free");
    for _ in 0..2 {
        sqlx::query(READ).execute(&mut *tx).await.expect("a row");
    }
    tx.commit().await.expect("saved");
}

#[tokio::test]
async fn a_nested_checkout_in_a_pool_with_nothing_left() {
    let ground = Ground::new(2).await;
    let app = Router::new().route("/orders/{id}/price", post(price));
    let addr = ground.serve(app).await;
    // Somebody whose long hold is allowed has the other one.
    let import = ground.pool.labeled("import").unreported();
    let import = Scope::new("import").run(import.acquire()).await;
    let request = tokio::spawn(async move { ask(addr, "POST /orders/7/price", "r5").await });
    let first = ground
        .first_report(&[
            &format!("taken at {}", at!("let mut tx = pool.begin()")),
            &format!("last used at {}", at!("read.execute(&mut *tx)")),
            &format!(
                "and waits for another of pool \"orders\" at {}",
                at!("let mut second")
            ),
            "nested 1: POST /orders/{id}/price holds one",
            "serving    POST /orders/{id}/price   request r5",
            "likely     its owner waits for another connection",
        ])
        .await;
    assert_eq!(
        (first.kind, first.severity),
        (Kind::Exhausted, Severity::Warn)
    );
    assert_eq!(first.causes[0].kind, CauseKind::Nested);
    drop(import);
    assert!(request.await.expect("no panic").contains("200"));
}

#[tokio::test]
async fn the_same_on_one_connection_is_silent() {
    let ground = Ground::new(2).await;
    let app = Router::new().route("/orders/{id}/price", post(price_with_one));
    let addr = ground.serve(app).await;
    let import = ground.pool.labeled("import").unreported();
    let import = Scope::new("import").run(import.acquire()).await;
    assert!(
        ask(addr, "POST /orders/7/price", "r5")
            .await
            .contains("200")
    );
    drop(import);
    ground.silent().await;
}
