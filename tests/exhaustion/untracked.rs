//! `untracked`: connections that are out, and not through leaktrace.

use leaktrace::{CauseKind, Config};
use sqlx::{Postgres, Sqlite};

use crate::at;
use crate::bench::{Bench, PATIENCE, assert_names, cause, millis, quick};
use crate::support::Proxy;
use crate::support::db::{postgres_database, sqlite_database};

#[tokio::test]
async fn the_line_that_handed_the_raw_pool_out_is_named() {
    let bench = Bench::new(Config::default());
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 2, millis(2500));
    let raw = pool.as_sqlx().clone();
    let _out = (raw.acquire().await, raw.acquire().await);
    assert!(pool.acquire().await.is_err());
    for finding in [bench.waiting().await, bench.timed_out().await] {
        let untracked =
            cause(&finding, CauseKind::Untracked).unwrap_or_else(|| panic!("{finding}"));
        assert_eq!(untracked.share, 2);
        let line = at!("let raw = pool.as_sqlx()");
        assert_names(&untracked.detail, &["handed out at", &line]);
    }
}

#[tokio::test]
async fn a_pool_that_was_raw_before_it_was_watched_is_found_by_asking_the_server() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let options = sqlx::postgres::PgPoolOptions::new();
    let raw = options.max_connections(2).acquire_timeout(millis(2500));
    let raw = raw.connect_lazy(&db.url).expect("a URL");
    let pool = bench.monitor.watch("orders", raw.clone());
    let _out = (raw.acquire().await, raw.acquire().await);
    assert!(pool.acquire().await.is_err());
    let (finding, untracked) = bench.cause(CauseKind::Untracked).await;
    assert_eq!(untracked.share, 2);
    assert_eq!(finding.causes.len(), 1, "{finding}");
}

#[tokio::test]
async fn a_raw_pool_that_was_used_and_given_back_is_not_blamed() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let pool = bench.open_pool::<Postgres>(&db, 2, millis(900)).await;
    let answer = sqlx::query("SELECT 1").execute(pool.as_sqlx()).await;
    answer.expect("a row");
    let _out = (pool.acquire().await, pool.acquire().await);
    assert!(pool.acquire().await.is_err());
    bench.timed_out().await;
    bench.never_said(&[CauseKind::Untracked, CauseKind::Connecting]);
}

#[tokio::test]
async fn a_connection_that_takes_long_to_open_is_not_untracked() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::new(quick().wait(millis(50)));
    let proxy = Proxy::start(&db.url);
    // Opening takes several round trips: much longer than a wait may, shorter than the limit for ours.
    proxy.delay(millis(60));
    let pool = bench.pool_at::<Postgres>(&proxy.url(&db.url), 1, PATIENCE);
    let (opened, also) = tokio::join!(pool.acquire(), bench.waiting());
    opened.expect("in time");
    assert!(cause(&also, CauseKind::Untracked).is_none(), "{also}");
    bench.never_said(&[CauseKind::Untracked]);
}
