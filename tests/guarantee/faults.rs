//! What goes wrong around a holder: panics, aborted tasks, ending runtimes, dead backends, and many
//! cuts at once.

use std::panic::{AssertUnwindSafe, catch_unwind};

use leaktrace::{Config, Kind};
use sqlx::{Postgres, Sqlite};

use crate::stage::{LONG, Stage, ours};
use crate::support::{Db, Observer, eventually};

/// Everything is back, counted exactly, and the next borrower is clean.
macro_rules! is_whole {
    ($pool:expr, $stage:expr) => {{
        leaktrace::assert_no_leaks!($pool);
        let status = $pool.status();
        assert_eq!(
            (status.held, status.returning, status.waiting),
            (0, 0, 0),
            "{status:?}"
        );
        assert_eq!(status.orphaned, 0);
        assert!(next_borrower_is_clean!($pool, $stage));
    }};
}

macro_rules! panics_in_a_transaction {
    ($db:ty, $stage:ident) => {{
        let (pool, findings) = ours::<$db>(&$stage, 1).await;
        let inner = pool.clone();
        let task = tokio::spawn(async move {
            let mut tx = inner.begin().await.expect("a transaction");
            sqlx::query("INSERT INTO t VALUES (1)")
                .execute(&mut *tx)
                .await
                .expect("a row");
            panic!("on purpose, with a transaction open");
        });
        assert!(task.await.expect_err("it panics").is_panic());
        assert_eq!($stage.rows().await, 0);
        is_whole!(pool, $stage);
        assert!(findings.is_empty(), "{:?}", findings.all());
    }};
}

macro_rules! unwinds_without_a_runtime {
    ($db:ty, $stage:ident) => {{
        let (pool, _) = ours::<$db>(&$stage, 2).await;
        let conn = pool.acquire().await.expect("a connection");
        let tx = pool.begin().await.expect("a transaction");
        // A second panic while unwinding would abort the process.
        let unwound = std::thread::spawn(move || {
            catch_unwind(AssertUnwindSafe(|| {
                let _both = (conn, tx);
                panic!("on purpose, outside of any runtime");
            }))
            .is_err()
        });
        assert!(unwound.join().expect("the thread ends"));
        is_whole!(pool, $stage);
    }};
}

macro_rules! aborted_tasks {
    ($db:ty, $stage:ident) => {{
        let (pool, _) = ours::<$db>(&$stage, 1).await;
        for _ in 0..5 {
            let inner = pool.clone();
            let held = std::sync::Arc::new(tokio::sync::Notify::new());
            let holds = held.clone();
            let task = tokio::spawn(async move {
                let mut tx = inner.begin().await.expect("a transaction");
                sqlx::query("INSERT INTO t VALUES (1)")
                    .execute(&mut *tx)
                    .await
                    .expect("a row");
                holds.notify_one();
                std::future::pending::<()>().await;
            });
            held.notified().await;
            task.abort();
            let _ = task.await;
            is_whole!(pool, $stage);
        }
        assert_eq!($stage.rows().await, 5, "those of the next borrowers");
    }};
}

/// Also with `min_connections`, where sqlx starts tasks for guards that are empty.
macro_rules! given_away_without_a_runtime {
    ($db:ty, $stage:ident) => {{
        let monitor = leaktrace::Monitor::new(Config::default());
        let pool = leaktrace::PoolOptions::<$db>::new()
            .monitor(&monitor)
            .min_connections(1)
            .max_connections(3)
            .connect(&$stage.url)
            .await
            .expect("a pool");
        let (one, two, three) = (
            pool.acquire().await.expect("a connection"),
            pool.acquire().await.expect("a connection"),
            pool.acquire().await.expect("a connection"),
        );
        let kept = std::thread::spawn(move || {
            drop(three);
            (one.detach(), two.leak())
        });
        let kept = kept.join().expect("nothing panics");
        eventually("two records have ended", LONG, async || {
            pool.holders().len() == 1
        })
        .await;
        assert_eq!(pool.holders()[0].phase, leaktrace::Phase::LeakedOnPurpose);
        drop(pool.acquire().await.expect("a permit of the detached one"));
        drop(kept);
    }};
}

on_each! {
    a_panic_in_a_transaction_rolls_it_back [Postgres, MySql, Sqlite, Any] panics_in_a_transaction;
    unwinding_without_a_runtime_loses_nothing [Postgres, MySql, Sqlite, Any] unwinds_without_a_runtime;
    an_aborted_task_leaves_nothing [Postgres, MySql, Sqlite, Any] aborted_tasks;
    guards_given_away_without_a_runtime_do_not_panic [Postgres, MySql, Sqlite] given_away_without_a_runtime;
}

#[test]
fn a_runtime_that_ends_with_holders_alive_takes_nothing_with_it() {
    let first = tokio::runtime::Runtime::new().expect("a runtime");
    let second = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut stage, pool, held) = first.block_on(async {
        let stage = Stage::set(Db::Sqlite)
            .await
            .expect("SQLite is always there");
        let (pool, _) = ours::<Sqlite>(&stage, 2).await;
        let mut tx = pool.begin().await.expect("a transaction");
        sqlx::query("INSERT INTO t VALUES (1)")
            .execute(&mut *tx)
            .await
            .expect("a row");
        let inner = pool.clone();
        tokio::spawn(async move {
            let _held = inner.acquire().await.expect("a connection");
            std::future::pending::<()>().await;
        });
        eventually("two holders", LONG, async || pool.holders().len() == 2).await;
        (stage, pool, tx)
    });
    drop(first);
    drop(held);
    second.block_on(async {
        is_whole!(pool, stage);
        assert_eq!(stage.rows().await, 1, "that of the next borrower");
    });
}

#[tokio::test]
async fn a_forgotten_guard_stays_listed_and_the_rest_of_the_pool_works() {
    let stage = Stage::set(Db::Sqlite)
        .await
        .expect("SQLite is always there");
    let (pool, _) = ours::<Sqlite>(&stage, 2).await;
    std::mem::forget(pool.acquire().await.expect("a connection"));
    for _ in 0..10 {
        drop(pool.acquire().await.expect("the other one"));
    }
    eventually("only the forgotten one", LONG, async || {
        pool.holders().len() == 1
    })
    .await;
    assert_eq!(pool.status().held, 1);
}

#[tokio::test]
async fn a_terminated_backend_is_replaced() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let (pool, findings) = ours::<Postgres>(&stage, 1).await;
    for in_transaction in [false, true] {
        let mut tx = pool.begin().await.expect("a transaction");
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut *tx)
            .await
            .expect("a pid");
        let open = in_transaction.then_some(tx);
        if !in_transaction {
            leaktrace::assert_no_leaks!(pool);
        }
        let Observer::Postgres(observer) = &mut stage.observer else {
            unreachable!("it watches PostgreSQL")
        };
        assert!(observer.terminate(pid).await);
        eventually("it is gone", LONG, async || {
            observer.backend(pid).await.is_none()
        })
        .await;
        drop(open);
        // Within the alive bypass nobody asks: `tests/alive` has what happens then.
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        is_whole!(pool, stage);
    }
    assert!(findings.is_empty(), "{:?}", findings.all());
}

macro_rules! reset_under_load {
    ($db:ty, $stage:ident) => {{
        let (pool, findings) = ours::<$db>(&$stage, 3).await;
        let proxy = $stage.proxy.take().expect("a network");
        for _ in 0..10 {
            let load: Vec<_> = (0..6)
                .map(|_| {
                    let pool = pool.clone();
                    tokio::spawn(async move {
                        let mut tx = pool.begin().await?;
                        sqlx::query("INSERT INTO t VALUES (9)")
                            .execute(&mut *tx)
                            .await?;
                        tx.rollback().await
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            tokio::task::block_in_place(|| proxy.cut());
            for each in load {
                let _ = each.await.expect("nothing panics");
            }
        }
        leaktrace::assert_no_leaks!(pool);
        let all = (
            pool.acquire().await,
            pool.acquire().await,
            pool.acquire().await,
        );
        assert!(
            all.0.is_ok() && all.1.is_ok() && all.2.is_ok(),
            "no permit is lost"
        );
        drop(all);
        leaktrace::assert_no_leaks!(pool);
        assert_eq!($stage.rows().await, 0);
        let said = findings.all();
        let provoked = |kind| matches!(kind, Kind::StuckReturn | Kind::Exhausted);
        assert!(
            said.iter().all(|finding| provoked(finding.kind)),
            "{said:?}"
        );
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_reset_under_load_leave_nothing_on_postgres() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    reset_under_load!(Postgres, stage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_reset_under_load_leave_nothing_on_mariadb() {
    let Some(mut stage) = Stage::set(Db::MySql).await else {
        return;
    };
    reset_under_load!(sqlx::MySql, stage);
}

/// A reset while a statement runs: an error to its caller, and no more than that.
macro_rules! reset_in_a_statement {
    ($db:ty, $stage:ident, $sleep:literal) => {{
        let (pool, findings) = ours::<$db>(&$stage, 1).await;
        for by in ["the pool", "a transaction", "a raw loan"] {
            let inner = pool.clone();
            let statement = tokio::spawn(async move {
                let statement = sqlx::query($sleep);
                match by {
                    "the pool" => statement.execute(&inner).await.map(drop),
                    "a transaction" => {
                        let mut tx = inner.begin().await?;
                        statement.execute(&mut *tx).await.map(drop)
                    }
                    _ => {
                        let mut conn = inner.acquire().await?;
                        statement.execute(&mut **conn).await.map(drop)
                    }
                }
            });
            let observer = &mut $stage.observer;
            eventually("it runs", LONG, async || {
                crate::limits::sleepers(observer).await == 1
            })
            .await;
            let proxy = $stage.proxy.as_ref().expect("a network");
            tokio::task::block_in_place(|| proxy.cut());
            let error = statement
                .await
                .expect("no panic")
                .expect_err("it was reset");
            assert!(matches!(error, sqlx::Error::Io(_)), "{by}: {error:?}");
            is_whole!(pool, $stage);
            assert_eq!(pool.size(), 1, "{by}");
            assert!(findings.is_empty(), "{by}: {:?}", findings.all());
            let observer = &mut $stage.observer;
            eventually("it is over", LONG, async || {
                crate::limits::sleepers(observer).await == 0
            })
            .await;
        }
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_reset_in_a_statement_is_replaced_on_postgres() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    reset_in_a_statement!(Postgres, stage, "SELECT pg_sleep(2)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_reset_in_a_statement_is_replaced_on_mariadb() {
    let Some(mut stage) = Stage::set(Db::MySql).await else {
        return;
    };
    reset_in_a_statement!(sqlx::MySql, stage, "SELECT SLEEP(2)");
}
