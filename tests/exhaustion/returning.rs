//! `returning`: connections are on their way back, behind statements that the server still runs.

use leaktrace::CauseKind;
use sqlx::Postgres;

use crate::bench::{Bench, PATIENCE, assert_names, millis};
use crate::support::db::postgres_database;

#[tokio::test]
async fn a_cancelled_statement_that_the_server_still_runs_is_named() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let pool = bench.open_pool::<Postgres>(&db, 1, PATIENCE).await;
    // Sent at its first poll.
    let slow = sqlx::raw_sql("SELECT pg_sleep(4)").execute(&pool);
    assert!(tokio::time::timeout(millis(300), slow).await.is_err());
    let (second, (finding, returning)) =
        tokio::join!(pool.acquire(), bench.cause(CauseKind::Returning));
    second.expect("in time");
    assert_eq!(returning.share, 1);
    assert_eq!(finding.causes.len(), 1, "{finding}");
    assert_names(&returning.detail, &["on the way back", "pg_sleep"]);
}

#[tokio::test]
async fn a_statement_that_is_still_awaited_is_not_on_its_way_back() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let pool = bench.open_pool::<Postgres>(&db, 1, PATIENCE).await;
    let slow = async {
        let slow = sqlx::query("SELECT pg_sleep(3)").execute(&pool).await;
        slow.expect("a row");
    };
    let ((), second, _) = tokio::join!(slow, pool.acquire(), bench.waiting());
    second.expect("in time");
    bench.never_said(&[CauseKind::Returning]);
}
