//! A pool that is exhausted again and again: reported once an interval, and the rest as a count.

use std::time::Duration;

use leaktrace::{Scope, Severity, SqlitePool};
use sqlx::Sqlite;

use crate::bench::{Bench, PATIENCE, assert_names, millis, quick};
use crate::support::db::sqlite_database;

/// Somebody holds the only connection while this many others fail.
async fn fail(pool: &SqlitePool, times: usize) {
    let held = Scope::new("somebody").run(pool.acquire()).await;
    let held = held.expect("free");
    for _ in 0..times {
        let error = pool.acquire().await.map(drop);
        assert!(matches!(error, Err(sqlx::Error::PoolTimedOut)), "{error:?}");
    }
    held.release().await;
}

#[tokio::test]
async fn the_same_within_the_interval_is_counted_and_told_at_its_end_and_then_it_is_news_again() {
    // Much longer than what happens within it.
    let interval = Duration::from_secs(8);
    let bench = Bench::new(quick().wait(PATIENCE).report_interval(interval));
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 1, millis(100)).await;
    fail(&pool, 2).await;
    let first = bench.timed_out().await;
    let over = bench.over().await;
    assert_eq!((over.id, over.count), (first.id, 2), "{over}");
    bench.findings.take();

    fail(&pool, 3).await;
    let repeats = bench.over().await;
    assert_names(
        &repeats.headline,
        &["was exhausted 1 more time since", "3 acquires failed"],
    );
    assert_eq!(repeats.phase(), Some("over"));
    assert_ne!(repeats.id, first.id);
    assert_eq!(bench.count(Severity::Error), 0, "not one by one");
    bench.findings.take();

    fail(&pool, 1).await;
    bench.timed_out().await;
    bench.over().await;
}

#[tokio::test]
async fn another_pool_and_another_stage_are_news_at_once() {
    let bench = Bench::new(quick().report_interval(Duration::from_secs(600)));
    let db = sqlite_database().await;
    for name in ["orders", "orders 2"] {
        // Long beyond 200 ms: also a watchdog that is late has both to say.
        let patience = Duration::from_secs(4);
        let pool = bench.open_pool::<Sqlite>(&db, 1, patience).await;
        assert_eq!(pool.name(), name);
        fail(&pool, 1).await;
        // Both stages of it: it waited for longer than 200 ms, and then failed.
        for finding in [bench.waiting().await, bench.timed_out().await] {
            assert_eq!(finding.pool, name, "{finding}");
        }
        bench.over().await;
        bench.findings.take();
        // A name is given again when its pool is gone.
        std::mem::forget(pool);
    }
}
