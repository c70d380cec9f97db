//! A connection that is kept beyond the answer.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Extension, Router};
use leaktrace::{Kind, PoolConnection, Scope, SqlitePool};
use sqlx::Sqlite;
use tokio::sync::{Mutex, Semaphore};

use crate::at;
use crate::service::{Ground, ask, ask_a_partner};

const WRITE: &str = "UPDATE orders SET state = 'mailed' WHERE id = 7";

/// Tells that the task is over.
type Done = Extension<Arc<Semaphore>>;

async fn mail(State(pool): State<SqlitePool>, Extension(done): Done) {
    let mut conn = pool.acquire().await.expect("free");
    tokio::spawn(async move {
        ask_a_partner().await;
        sqlx::query(WRITE).execute(&mut *conn).await.expect("a row");
        drop(conn);
        done.add_permits(1);
    });
}

async fn mail_on_its_own(State(pool): State<SqlitePool>, Extension(done): Done) {
    tokio::spawn(Scope::new("mail").run(async move {
        ask_a_partner().await;
        sqlx::query(WRITE).execute(&pool).await.expect("a row");
        done.add_permits(1);
    }));
}

#[tokio::test]
async fn a_task_that_takes_the_connection_along() {
    let ground = Ground::new(2).await;
    let done = Arc::new(Semaphore::new(0));
    let app = Router::new().route("/orders/{id}/mail", post(mail));
    let addr = ground.serve(app.layer(Extension(done.clone()))).await;
    assert!(ask(addr, "POST /orders/7/mail", "r3").await.contains("200"));
    let first = ground
        .first_report(&[
            &at!("let mut conn = pool.acquire().await.expect(\"free\");"),
            "serving    POST /orders/{id}/mail   request r3",
            "outlived its request",
        ])
        .await;
    assert_eq!(first.kind, Kind::OutlivedRequest);
    done.acquire().await.expect("open").forget();
}

#[tokio::test]
async fn a_task_with_a_scope_and_a_connection_of_its_own_is_silent() {
    let ground = Ground::new(2).await;
    let done = Arc::new(Semaphore::new(0));
    let app = Router::new().route("/orders/{id}/mail", post(mail_on_its_own));
    let addr = ground.serve(app.layer(Extension(done.clone()))).await;
    assert!(ask(addr, "POST /orders/7/mail", "r3").await.contains("200"));
    done.acquire().await.expect("open").forget();
    ground.silent().await;
}

/// Where the service keeps "its own" connection.
type Own = Extension<Arc<Mutex<Option<PoolConnection<Sqlite>>>>>;

async fn sales(State(pool): State<SqlitePool>, Extension(own): Own) {
    let mut own = own.lock().await;
    if own.is_none() {
        *own = Some(pool.acquire().await.expect("free"));
    }
    let own = own.as_mut().expect("just made");
    let count = sqlx::query("SELECT count(*) FROM orders");
    count.execute(&mut **own).await.expect("a row");
}

async fn sales_of_the_pool(State(pool): State<SqlitePool>) {
    let count = sqlx::query("SELECT count(*) FROM orders");
    count.execute(&pool).await.expect("a row");
}

#[tokio::test]
async fn a_connection_that_is_kept_in_a_field() {
    let ground = Ground::new(2).await;
    let app = Router::new().route("/sales", get(sales));
    let own = Own::default();
    let addr = ground.serve(app.layer(own)).await;
    assert!(ask(addr, "GET /sales", "r4").await.contains("200"));
    let first = ground
        .first_report(&[
            &at!("*own = Some(pool.acquire()"),
            &at!("count.execute(&mut **own)"),
            "serving    GET /sales   request r4",
            "outlived its request",
        ])
        .await;
    assert_eq!(first.kind, Kind::OutlivedRequest);
}

#[tokio::test]
async fn the_same_statement_on_the_pool_is_silent() {
    let ground = Ground::new(2).await;
    let app = Router::new().route("/sales", get(sales_of_the_pool));
    let addr = ground.serve(app).await;
    assert!(ask(addr, "GET /sales", "r4").await.contains("200"));
    // Longer than the grace.
    ask_a_partner().await;
    ground.silent().await;
}
