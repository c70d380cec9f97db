//! Every checkout is in both histograms once: its wait, of nothing too, and its hold.

use std::time::Instant;

use leaktrace::metrics::BUCKETS;
use sqlx::Acquire;

use crate::ground::{Bench, LONG, POOL, Page, checkout, millis, silent};
use crate::support::eventually;

const WAIT: &str = "db_client_connection_wait_time_seconds";
const USE: &str = "db_client_connection_use_time_seconds";

fn count(page: &Page, histogram: &str) -> f64 {
    page.sum(&format!("{histogram}_count"))
}

fn sum(page: &Page, histogram: &str) -> f64 {
    page.sum(&format!("{histogram}_sum"))
}

fn at_most(page: &Page, histogram: &str, le: &str) -> f64 {
    page.value(
        &format!("{histogram}_bucket"),
        &[(POOL, "orders"), ("le", le)],
    )
}

#[tokio::test]
async fn a_connection_that_is_there_at_once_is_a_wait_of_nothing() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 1).await;
    checkout(&orders).await;
    let before = bench.page().await;
    assert_eq!(count(&before, WAIT), 1.0);
    // It has come back just now: it is not tested again.
    let quick = orders.acquire().await.expect("a connection");
    let after = bench.page().await;
    assert_eq!(count(&after, WAIT), 2.0);
    assert_eq!(sum(&after, WAIT), sum(&before, WAIT), "nothing was added");
    quick.release().await;
    let _tried = orders.try_acquire().expect("a connection");
    let after = bench.page().await;
    assert_eq!(count(&after, WAIT), 3.0);
    assert_eq!(sum(&after, WAIT), sum(&before, WAIT), "nothing was added");
}

#[tokio::test]
async fn who_waits_is_in_the_bucket_of_his_wait_and_who_gives_up_in_none() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 1).await;
    let held = orders.acquire().await.expect("a connection");
    let waiter = {
        let orders = orders.clone();
        tokio::spawn(async move { orders.acquire().await.map(drop) })
    };
    let leaver = {
        let orders = orders.clone();
        tokio::spawn(async move { orders.acquire().await.map(drop) })
    };
    eventually("both wait", LONG, async || orders.status().waiting == 2).await;
    leaver.abort();
    tokio::time::sleep(millis(200)).await;
    let start = Instant::now();
    drop(held);
    waiter.await.expect("it ran").expect("its turn");
    let page = bench.page().await;
    assert_eq!(count(&page, WAIT), 2.0);
    let waited = sum(&page, WAIT);
    assert!(waited >= 0.2, "{waited}");
    let most = (millis(200) + start.elapsed() + LONG).as_secs_f64();
    assert!(waited < most, "{waited}");
    assert_eq!(
        at_most(&page, WAIT, "0.1"),
        1.0,
        "the one that had not waited"
    );
}

#[tokio::test]
async fn the_hold_is_from_the_grant_to_the_drop() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 2).await;
    let start = Instant::now();
    let held = orders.acquire().await.expect("a connection");
    checkout(&orders).await;
    tokio::time::sleep(millis(150)).await;
    // Out, so not over.
    assert_eq!(count(&bench.page().await, USE), 1.0);
    held.release().await;
    let most = start.elapsed().as_secs_f64();
    let page = bench.page().await;
    assert_eq!(count(&page, USE), 2.0);
    let total = sum(&page, USE);
    assert!(total >= 0.15 && total <= 2.0 * most, "{total} of {most}");
    assert!(at_most(&page, USE, "0.1") <= 1.0);
}

#[tokio::test]
async fn each_door_is_counted_once() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 4).await;
    drop(orders.acquire().await.expect("a connection"));
    orders
        .begin()
        .await
        .expect("one")
        .commit()
        .await
        .expect("an end");
    let one: i64 = sqlx::query_scalar("SELECT 1")
        .fetch_one(&orders)
        .await
        .expect("a row");
    assert_eq!(one, 1);
    let idle = async || orders.try_acquire();
    drop(eventually("one is idle", LONG, idle).await);
    drop(Acquire::acquire(&orders).await.expect("a connection"));
    let gone = orders.acquire().await.expect("a connection").detach();
    orders
        .acquire()
        .await
        .expect("one")
        .close()
        .await
        .expect("an end");
    eventually("all are over", LONG, async || {
        let seen = count(&bench.page().await, USE);
        if seen == 7.0 { Ok(()) } else { Err(seen) }
    })
    .await;
    assert_eq!(count(&bench.page().await, WAIT), 7.0);
    drop(gone);
    // sqlx's own transaction has no guard of ours: its wait is seen, its end is not.
    let tx = Acquire::begin(&orders).await.expect("a transaction");
    tx.rollback().await.expect("an end");
    // Given away with its permit: it never ends.
    let _leaked = orders.acquire().await.expect("a connection").leak();
    let page = bench.page().await;
    assert_eq!((count(&page, WAIT), count(&page, USE)), (9.0, 7.0));
}

#[tokio::test]
async fn the_buckets_are_those_that_are_offered() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 1).await;
    drop(orders.acquire().await.expect("a connection"));
    let page = bench.page().await;
    let found = page.find(&format!("{WAIT}_bucket"), &[(POOL, "orders")]);
    let bounds: Vec<f64> = found
        .iter()
        .map(|bucket| bucket.labels["le"].parse().expect("a number"))
        .collect();
    let expected: Vec<f64> = BUCKETS.iter().copied().chain([f64::INFINITY]).collect();
    assert_eq!(bounds, expected);
}
