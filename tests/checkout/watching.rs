//! One record for one pool, and a name for each.

use leaktrace::{Config, Monitor, Pool};

use crate::ground::*;
use crate::support::{Db, ran_on};

fn lazy() -> sqlx::SqlitePool {
    ran_on(Db::Sqlite);
    sqlx::SqlitePool::connect_lazy("sqlite::memory:").expect("a lazy pool")
}

#[tokio::test]
async fn watching_a_pool_twice_yields_the_same_record() {
    let monitor = Monitor::new(Config::default());
    let raw = lazy();
    let first = monitor.watch("orders", raw.clone());
    let second = monitor.watch("something else", raw);
    assert_eq!(second.name(), "orders", "the first name");
    let _conn = first.acquire().await.expect("a connection");
    assert_eq!(second.holders().len(), 1);
    assert_eq!(second.status().held, 1);
    assert_eq!(monitor.report().pools.len(), 1);
}

#[tokio::test]
async fn two_pools_are_two_records_also_under_one_name() {
    let monitor = Monitor::new(Config::default());
    let pools: Vec<_> = (0..3).map(|_| monitor.watch("orders", lazy())).collect();
    let names: Vec<&str> = pools.iter().map(Pool::name).collect();
    assert_eq!(names, ["orders", "orders 2", "orders 3"]);
    let _conn = pools[1].acquire().await.expect("a connection");
    assert_eq!(pools[0].status().held, 0);
    assert_eq!(pools[1].status().held, 1);
    assert!(pools[0].holders().is_empty());
}

#[tokio::test]
async fn a_name_is_free_again_when_its_pool_is_gone() {
    let monitor = Monitor::new(Config::default());
    drop(monitor.watch("orders", lazy()));
    assert_eq!(monitor.watch("orders", lazy()).name(), "orders");
}

#[tokio::test]
async fn names_that_look_alike_when_they_are_shown_are_told_apart() {
    let monitor = Monitor::new(Config::default());
    let one = monitor.watch("a\nb", lazy());
    let two = monitor.watch("a\\nb", lazy());
    assert_eq!((one.name(), two.name()), ("a\\nb", "a\\nb 2"));
    let long = "x".repeat(300);
    let one = monitor.watch(&long, lazy());
    let two = monitor.watch(&long, lazy());
    assert_ne!(one.name(), two.name());
    assert!(two.name().chars().count() <= 101, "{}", two.name());
}

#[tokio::test]
async fn monitors_see_only_their_own() {
    let one = sqlite(silent(), 2).await;
    let two = sqlite(silent(), 2).await;
    let _conn = one.pool.acquire().await.expect("a connection");
    assert_eq!(one.monitor.holders().len(), 1);
    assert!(two.monitor.holders().is_empty());
    assert_eq!(two.pool.status().held, 0);
}

#[tokio::test]
async fn any_pool_is_watched_like_the_others() {
    let test = crate::support::database(Db::Any)
        .await
        .expect("SQLite behind Any");
    let monitor = Monitor::new(silent());
    let pool = leaktrace::AnyPoolOptions::new()
        .monitor(&monitor)
        .connect(&test.url)
        .await
        .expect("a pool");
    let mut tx = pool.begin().await.expect("a transaction");
    let taken = line!() - 1;
    let line = line!() + 1;
    let statement = sqlx::query(QUICK).execute(&mut *tx);
    statement.await.expect("a statement");
    let holder = pool.holders().pop().expect("a holder");
    assert_eq!(holder.acquired_by.map(|place| place.line()), Some(taken));
    assert_eq!(holder.last_used_by.map(|place| place.line()), Some(line));
    assert_eq!(holder.last_sql.as_deref(), Some(QUICK_SHOWN));
    assert!(holder.in_transaction);
    tx.rollback().await.expect("a rollback");
}
