//! When a holder counts as overdue: automatic, fixed, per label, changed while running.

use std::time::Duration;

use leaktrace::{Config, Finding, Kind, Monitor, SqlitePool, SqlitePoolOptions, Threshold};

use crate::ground::*;
use crate::support::{Db, ran_on};

async fn pool(monitor: &Monitor, acquire_timeout: Duration) -> SqlitePool {
    ran_on(Db::Sqlite);
    SqlitePoolOptions::new()
        .monitor(monitor)
        .max_connections(4)
        .acquire_timeout(acquire_timeout)
        .connect("sqlite::memory:")
        .await
        .expect("a pool in memory")
}

#[tokio::test]
async fn the_automatic_threshold_is_half_of_the_acquire_timeout_within_bounds() {
    let monitor = Monitor::new(Config::default());
    for (timeout, threshold) in [(4_000, 2_000), (30_000, 10_000), (1_500, 1_000)] {
        let pool = pool(&monitor, millis(timeout)).await;
        let _conn = pool.acquire().await.expect("a connection");
        assert_eq!(pool.holders()[0].threshold, millis(threshold));
    }
}

#[tokio::test]
async fn a_fixed_threshold_is_the_same_for_every_pool() {
    let monitor = Monitor::new(Config::default().threshold(millis(70)));
    let pool = pool(&monitor, Duration::from_secs(30)).await;
    let _conn = pool.acquire().await.expect("a connection");
    assert_eq!(pool.holders()[0].threshold, millis(70));
    assert_eq!(monitor.threshold(), Threshold::Fixed(millis(70)));
}

#[tokio::test]
async fn a_labels_threshold_is_that_labels_alone() {
    let w = sqlite(silent(), 4).await;
    let _patient = w
        .pool
        .labeled("export")
        .acquire()
        .await
        .expect("a connection");
    let quick = w.pool.labeled("lookup").threshold(millis(50));
    let conn = quick.acquire().await.expect("a connection");
    let found = w.finding(Kind::HeldTooLong).await;
    assert_eq!(found.count, 1);
    assert_eq!(found.holders[0].label.as_deref(), Some("lookup"));
    assert!(
        found.headline.contains("label \"lookup\""),
        "{}",
        found.headline
    );
    drop(conn);
    w.finding(Kind::ReturnedLate).await;
    assert_eq!(w.findings.len(), 2, "{:?}", w.findings.all());
}

#[tokio::test]
async fn an_unreported_holder_is_never_reported_for_being_old() {
    let w = sqlite(silent().threshold(millis(50)), 4).await;
    let listener = w.pool.labeled("listener").unreported();
    let _listening = listener.acquire().await.expect("a connection");
    let mut in_tx = listener.begin().await.expect("a transaction");
    sqlx::query(QUICK)
        .execute(&mut *in_tx)
        .await
        .expect("a statement");
    // Its younger neighbour, without the exception, is.
    let conn = w.pool.acquire().await.expect("a connection");
    let found = w.finding(Kind::HeldTooLong).await;
    assert_eq!(found.count, 1);
    assert_eq!(found.holders[0].label, None);
    drop(conn);
    w.finding(Kind::ReturnedLate).await;
    assert_eq!(w.findings.len(), 2, "{:?}", w.findings.all());
    assert!(
        w.pool
            .holders()
            .iter()
            .all(|holder| holder.unreported && holder.overdue)
    );
}

#[tokio::test]
async fn a_threshold_changed_while_running_concerns_who_is_out() {
    let w = sqlite(silent(), 4).await;
    let _conn = w.pool.acquire().await.expect("a connection");
    let id = w.pool.holders()[0].id;
    w.monitor.set_threshold(millis(20));
    let found = w.finding(Kind::HeldTooLong).await;
    assert_eq!(found.holders[0].id, id);
    w.monitor.set_threshold(Threshold::Auto);
    assert!(!w.pool.holders()[0].overdue);
}

/// The watchdog sleeps for half a second while nothing is due sooner. A handle with a shorter
/// threshold must not have to wait for its next look.
#[tokio::test]
async fn a_shorter_threshold_counts_from_the_first_checkout_with_it() {
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let w = sqlite(silent(), 4).await;
        let _patient = w.pool.acquire().await.expect("a connection");
        tokio::time::sleep(millis(20)).await;
        let quick = w.pool.labeled("lookup").threshold(millis(20));
        let _quick = quick.acquire().await.expect("a connection");
        let found: Finding = w.finding(Kind::HeldTooLong).await;
        best = best.min(found.holders[0].held_for);
        if best < millis(200) {
            return;
        }
    }
    panic!("found after {best:?} at best");
}
