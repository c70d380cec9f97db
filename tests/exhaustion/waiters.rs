//! Who waits: recorded through every door, and only for one that really waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use leaktrace::{HolderKind, Scope, SqlitePool, Waiter};
use sqlx::{Acquire, Sqlite};

use crate::at;
use crate::bench::{Bench, PATIENCE, millis};
use crate::support::db::{postgres_database, sqlite_database};
use crate::support::{Proxy, eventually};

/// What is recorded of a wait for a pool whose only connection is held.
async fn recorded<F>(through: impl FnOnce(SqlitePool) -> F) -> Waiter
where
    F: Future<Output = ()> + Send + 'static,
{
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 1, PATIENCE);
    let held = pool.acquire().await.expect("free");
    let waits = tokio::spawn(Scope::new("GET /orders").run(through(pool.clone())));
    bench.until_waiting(1).await;
    assert_eq!(pool.status().waiting, 1);
    let waiter = bench.monitor.waiters().remove(0);
    drop(held);
    waits.await.expect("served");
    assert!(bench.monitor.waiters().is_empty());
    assert_eq!(pool.status().waiting, 0);
    assert_eq!(waiter.pool, "orders");
    let scope = waiter.scope.as_ref().map(|scope| scope.route.as_str());
    assert_eq!(scope, Some("GET /orders"));
    waiter
}

#[track_caller]
fn assert_at(waiter: &Waiter, kind: HolderKind, line: &str) {
    assert_eq!(waiter.kind, kind);
    let site = waiter.acquired_by.as_ref().map(ToString::to_string);
    let site = site.unwrap_or_default();
    assert!(site.starts_with(line), "{site} is not {line}");
}

#[tokio::test]
async fn acquire() {
    let waiter = recorded(|pool| async move {
        pool.acquire().await.expect("1");
    });
    let waiter = waiter.await;
    assert_at(&waiter, HolderKind::Connection, &at!("expect(\"1\")"));
    assert_eq!(waiter.label, None);
}

#[tokio::test]
async fn begin() {
    let waiter = recorded(|pool| async move {
        pool.begin().await.expect("2");
    });
    assert_at(
        &waiter.await,
        HolderKind::Transaction,
        &at!("expect(\"2\")"),
    );
}

#[tokio::test]
async fn begin_with() {
    let waiter = recorded(|pool| async move {
        pool.begin_with("BEGIN IMMEDIATE").await.expect("3");
    });
    assert_at(
        &waiter.await,
        HolderKind::Transaction,
        &at!("expect(\"3\")"),
    );
}

#[tokio::test]
async fn a_statement_on_the_pool() {
    let waiter = recorded(|pool| async move {
        sqlx::query("SELECT 1").execute(&pool).await.expect("4");
    });
    let waiter = waiter.await;
    assert_eq!(waiter.kind, HolderKind::Statement);
    assert_eq!(waiter.acquired_by, None, "its caller is sqlx");
}

#[tokio::test]
async fn acquire_of_the_trait() {
    let waiter = recorded(|pool| async move {
        Acquire::acquire(&pool).await.expect("5");
    });
    assert_at(&waiter.await, HolderKind::Connection, &at!("expect(\"5\")"));
}

#[tokio::test]
async fn begin_of_the_trait() {
    let waiter = recorded(|pool| async move {
        Acquire::begin(&pool).await.expect("6");
    });
    assert_at(
        &waiter.await,
        HolderKind::Transaction,
        &at!("expect(\"6\")"),
    );
}

#[tokio::test]
async fn under_a_label() {
    let waiter = recorded(|pool| async move {
        pool.labeled("csv export").acquire().await.expect("7");
    });
    let waiter = waiter.await;
    assert_at(&waiter, HolderKind::Connection, &at!("expect(\"7\")"));
    assert_eq!(waiter.label.as_deref(), Some("csv export"));
}

#[tokio::test]
async fn one_that_is_dropped_waits_no_longer() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 1, PATIENCE);
    let _held = pool.acquire().await.expect("free");
    let mut waits = Box::pin(pool.begin());
    assert!((&mut waits).now_or_never().is_none());
    assert_eq!(bench.monitor.waiters().len(), 1);
    drop(waits);
    assert!(bench.monitor.waiters().is_empty());
    assert_eq!(pool.status().waiting, 0);
}

/// The hook runs inside of the acquire, where a record would be seen.
#[tokio::test]
async fn nothing_is_recorded_of_one_that_is_served_at_once() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let (asked, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let pool = leaktrace::SqlitePoolOptions::new()
        .monitor(&bench.monitor)
        .before_acquire({
            let (asked, seen) = (asked.clone(), seen.clone());
            let monitor = bench.monitor.clone();
            move |_, _| {
                asked.fetch_add(1, Ordering::Relaxed);
                seen.fetch_add(monitor.waiters().len(), Ordering::Relaxed);
                Box::pin(std::future::ready(Ok(true)))
            }
        })
        .connect(&db.url)
        .await
        .expect("a file");
    for _ in 0..100 {
        pool.acquire().await.expect("free").release().await;
    }
    assert!(asked.load(Ordering::Relaxed) >= 99);
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

/// Those who are served next have not looked yet: what is meant for them is idle and not to be had.
#[tokio::test]
async fn one_that_comes_after_others_were_served_waits() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 2, PATIENCE).await;
    let held = [pool.acquire().await, pool.acquire().await];
    let mut served = [Box::pin(pool.acquire()), Box::pin(pool.acquire())];
    for waits in &mut served {
        assert!(waits.as_mut().now_or_never().is_none());
    }
    drop(held);
    eventually("both are back", PATIENCE, async || pool.num_idle() == 2).await;
    let mut late = Box::pin(pool.acquire());
    assert!((&mut late).now_or_never().is_none());
    assert_eq!(pool.status().waiting, 3);
    assert_eq!(bench.monitor.waiters().len(), 3);
    for waits in served {
        drop(waits.await.expect("it was served"));
    }
    drop(late.await.expect("free again"));
    leaktrace::assert_no_leaks!(pool);
}

/// sqlx's ping makes each acquire pending, with its connection in its hands.
#[tokio::test]
async fn one_whose_connection_is_asked_does_not_wait() {
    let bench = Bench::quick();
    let Some(db) = postgres_database().await else {
        return;
    };
    let proxy = Proxy::start(&db.url);
    let options = sqlx::postgres::PgPoolOptions::new().max_connections(2);
    let raw = options.connect(&proxy.url(&db.url)).await;
    let pool = bench.monitor.watch("orders", raw.expect("a server"));
    // Its answer is not there yet.
    proxy.delay(millis(50));
    let mut asked = Box::pin(pool.acquire());
    assert!((&mut asked).now_or_never().is_none(), "sqlx pings");
    assert_eq!(pool.status().waiting, 0);
    drop(asked.await.expect("it answers"));
}
