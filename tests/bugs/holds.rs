//! A connection that is kept while something else is awaited, within the request.

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use leaktrace::{Kind, SqlitePool};

use crate::at;
use crate::service::{Ground, ask, ask_a_partner};

const READ: &str = "SELECT state FROM orders WHERE id = 7";
const WRITE: &str = "UPDATE orders SET state = 'shipped' WHERE id = 7";

async fn ship(State(pool): State<SqlitePool>) {
    let mut tx = pool.begin().await.expect("free");
    let write = sqlx::query(WRITE);
    write.execute(&mut *tx).await.expect("a row");
    ask_a_partner().await;
    tx.commit().await.expect("saved");
}

async fn asks_first(State(pool): State<SqlitePool>) {
    ask_a_partner().await;
    let mut tx = pool.begin().await.expect("free");
    sqlx::query(WRITE).execute(&mut *tx).await.expect("a row");
    tx.commit().await.expect("saved");
}

#[tokio::test]
async fn a_transaction_that_is_open_while_a_partner_is_asked() {
    let ground = Ground::new(2).await;
    let app = Router::new().route("/orders/{id}/ship", post(ship));
    let addr = ground.serve(app).await;
    let request = tokio::spawn(async move { ask(addr, "POST /orders/7/ship", "r1").await });
    let first = ground
        .first_report(&[
            &at!("let mut tx = pool.begin().await.expect(\"free\");"),
            &at!("write.execute(&mut *tx)"),
            "UPDATE orders SET state = ?",
            "serving    POST /orders/{id}/ship   request r1",
            "idle in transaction",
        ])
        .await;
    assert_eq!(first.kind, Kind::IdleInTransaction);
    assert!(request.await.expect("no panic").contains("200"));
}

#[tokio::test]
async fn the_same_asking_first_is_silent() {
    let ground = Ground::new(2).await;
    let app = Router::new().route("/orders/{id}/ship", post(asks_first));
    let addr = ground.serve(app).await;
    assert!(ask(addr, "POST /orders/7/ship", "r1").await.contains("200"));
    ground.silent().await;
}

async fn restock(State(pool): State<SqlitePool>) {
    let state = sqlx::query_scalar::<_, String>(READ);
    match state
        .fetch_one(&mut *pool.acquire().await.expect("free"))
        .await
    {
        Ok(_) => ask_a_partner().await,
        Err(error) => panic!("{error}"),
    }
}

async fn restock_bound_first(State(pool): State<SqlitePool>) {
    let state = sqlx::query_scalar::<_, String>(READ);
    let state = state
        .fetch_one(&mut *pool.acquire().await.expect("free"))
        .await;
    match state {
        Ok(_) => ask_a_partner().await,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_guard_that_is_a_temporary_of_a_match() {
    let ground = Ground::new(2).await;
    let app = Router::new().route("/articles/{id}/restock", post(restock));
    let addr = ground.serve(app).await;
    let request = tokio::spawn(async move { ask(addr, "POST /articles/7/restock", "r2").await });
    let line = at!(".fetch_one(&mut *pool.acquire()");
    let first = ground
        .first_report(&[
            &format!("acquired   {line}"),
            &format!("last used  {line}"),
            "serving    POST /articles/{id}/restock   request r2",
            "overdue",
        ])
        .await;
    assert_eq!(first.kind, Kind::HeldTooLong);
    assert!(request.await.expect("no panic").contains("200"));
}

#[tokio::test]
async fn the_same_bound_first_is_silent() {
    let ground = Ground::new(2).await;
    let app = Router::new().route("/articles/{id}/restock", post(restock_bound_first));
    let addr = ground.serve(app).await;
    let answer = ask(addr, "POST /articles/7/restock", "r2").await;
    assert!(answer.contains("200"), "{answer}");
    ground.silent().await;
}
