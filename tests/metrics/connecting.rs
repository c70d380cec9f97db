//! `connect_errors`: what sqlx hands on, and what our own attempts hear where it swallows the error.

use leaktrace::{PgPool, PgPoolOptions};
use sqlx::sqlite::SqliteConnectOptions;

use crate::ground::{Bench, LONG, millis, silent};
use crate::support::db::postgres_database;
use crate::support::{Proxy, eventually};

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_a_connect_error() {
    let bench = Bench::new(silent()).await;
    let (_archive, _other) = bench.sqlite("archive", 1).await;
    let nowhere = SqliteConnectOptions::new().filename("/nowhere/at/all.sqlite");
    let orders = bench.options("orders", 1).connect_lazy_with(nowhere);
    assert!(orders.acquire().await.is_err());
    let page = bench.page().await;
    assert_eq!(page.of("orders", ERRORS), 1.0);
    assert_eq!(page.of("archive", ERRORS), 0.0);
}

const ERRORS: &str = "leaktrace_connect_errors_total";

/// A pool behind a server that refuses.
async fn refused(bench: &Bench) -> Option<(Proxy, PgPool)> {
    let db = postgres_database().await?;
    let proxy = Proxy::start(&db.url);
    proxy.refuse();
    let orders = PgPoolOptions::new()
        .name("orders")
        .monitor(&bench.monitor)
        .acquire_timeout(millis(300))
        .connect_lazy(&proxy.url(&db.url))
        .expect("a pool");
    Some((proxy, orders))
}

/// sqlx says that the pool timed out; our own attempt hears what the server says.
#[tokio::test]
async fn a_refused_connection_is_both_a_timeout_and_a_connect_error() {
    let bench = Bench::new(silent()).await;
    let Some((_proxy, orders)) = refused(&bench).await else {
        return;
    };
    assert!(orders.acquire().await.is_err());
    eventually("the attempt failed", LONG, async || {
        bench.page().await.of("orders", ERRORS) == 1.0
    })
    .await;
    let page = bench.page().await;
    assert_eq!(
        page.of("orders", "db_client_connection_timeouts_total"),
        1.0
    );
}

/// One attempt for each outage would look like a single fault.
#[tokio::test]
async fn connect_errors_grow_while_acquires_time_out() {
    let bench = Bench::new(silent().report_interval(LONG)).await;
    let Some((_proxy, orders)) = refused(&bench).await else {
        return;
    };
    eventually("three attempts failed", LONG, async || {
        assert!(orders.acquire().await.is_err());
        bench.page().await.of("orders", ERRORS) >= 3.0
    })
    .await;
}
