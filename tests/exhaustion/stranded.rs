//! `stranded`: a connection was granted to an acquire that nobody polls.

use std::time::Duration;

use futures::FutureExt;
use leaktrace::{CauseKind, Config};
use sqlx::Sqlite;

use crate::at;
use crate::bench::{Bench, assert_names, cause, millis};
use crate::support::db::sqlite_database;

#[tokio::test]
async fn the_acquire_that_is_kept_and_not_awaited_is_named() {
    let bench = Bench::new(Config::default());
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 1, Duration::from_secs(3));
    let held = pool.acquire().await.expect("free");
    let mut kept = Box::pin(pool.acquire());
    assert!((&mut kept).now_or_never().is_none());
    held.release().await;
    let (failed, waiting) = tokio::join!(pool.acquire(), bench.waiting());
    assert!(failed.is_err(), "with an idle connection in the pool");
    for finding in [waiting, bench.timed_out().await] {
        let stranded = cause(&finding, CauseKind::Stranded).unwrap_or_else(|| panic!("{finding}"));
        assert_eq!(stranded.share, 1);
        let line = at!("let mut kept =");
        assert_names(
            &stranded.detail,
            &["the acquire at", &line, "is not polled"],
        );
        assert_eq!(finding.causes.len(), 1, "{finding}");
    }
    drop(kept);
    pool.acquire().await.expect("the permit is back");
}

#[tokio::test]
async fn an_acquire_that_waits_and_is_polled_is_not_stranded() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 1, Duration::from_secs(20));
    for _ in 0..20 {
        let held = pool.acquire().await.expect("in time");
        let kept = tokio::spawn(pool.acquire());
        bench.until_waiting(1).await;
        held.release().await;
        kept.await.expect("no panic").expect("in time");
    }
    let held = pool.acquire().await.expect("in time");
    let kept = tokio::spawn(pool.acquire());
    bench.waiting().await;
    tokio::time::timeout(millis(300), bench.cause(CauseKind::Stranded))
        .await
        .expect_err("nobody is stranded");
    drop(held);
    kept.await.expect("no panic").expect("in time");
}
