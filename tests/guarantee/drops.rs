//! R6 and R7: where and when a guard is dropped.

use crate::stage::{LONG, ours, raw};
use crate::support::eventually;

/// R6. A transaction dropped on a connection that is kept: what the server says meanwhile.
macro_rules! dropped_on_a_kept_connection {
    ($pool:expr, $stage:expr) => {{
        let mut conn = $pool.acquire().await.expect("a connection");
        let mut tx = conn.begin().await.expect("a transaction");
        sqlx::query("INSERT INTO t VALUES (1)")
            .execute(&mut *tx)
            .await
            .expect("a row");
        drop(tx);
        let observer = &mut $stage.observer;
        eventually("an open transaction", LONG, async || {
            observer.open_transactions().await == 1
        })
        .await;
        conn
    }};
}

macro_rules! raw_only_queues {
    ($db:ty, $stage:ident) => {{
        let pool = raw::<$db>(&$stage, 1).await;
        let _kept = dropped_on_a_kept_connection!(pool, $stage);
    }};
}

macro_rules! ours_says_so {
    ($db:ty, $stage:ident) => {{
        let (pool, _) = ours::<$db>(&$stage, 1).await;
        let mut conn = dropped_on_a_kept_connection!(pool, $stage);
        assert!(pool.holders()[0].in_transaction, "the server has it open");
        sqlx::query("SELECT 1")
            .execute(&mut *conn)
            .await
            .expect("an answer");
        assert!(
            !pool.holders()[0].in_transaction,
            "rolled back before the statement"
        );
        drop(conn);
        assert!(next_borrower_is_clean!(pool, $stage));
        assert_eq!($stage.rows().await, 1);
    }};
}

/// R7. Drops `guard` on a thread without a runtime; answers whether that panicked.
fn panics_elsewhere<T: Send + 'static>(guard: T) -> bool {
    std::thread::spawn(move || drop(guard)).join().is_err()
}

macro_rules! raw_panics {
    ($db:ty, $stage:ident) => {{
        let pool = raw::<$db>(&$stage, 1).await;
        let conn = pool.acquire().await.expect("a connection");
        assert!(panics_elsewhere(conn), "sqlx has changed");
    }};
}

macro_rules! ours_comes_back {
    ($db:ty, $stage:ident) => {{
        let (pool, _) = ours::<$db>(&$stage, 2).await;
        let conn = pool.acquire().await.expect("a connection");
        let mut tx = pool.begin().await.expect("a transaction");
        sqlx::query("INSERT INTO t VALUES (1)")
            .execute(&mut *tx)
            .await
            .expect("a row");
        assert!(!panics_elsewhere(conn));
        assert!(!panics_elsewhere(tx));
        leaktrace::assert_no_leaks!(pool);
        let both = (pool.acquire().await, pool.acquire().await);
        assert!(both.0.is_ok() && both.1.is_ok(), "no permit is lost");
        assert_eq!($stage.rows().await, 0);
    }};
}

on_each! {
    a_dropped_transaction_of_sqlx_stays_open_on_a_kept_connection [Postgres, MySql] raw_only_queues;
    a_dropped_transaction_is_shown_until_the_server_ended_it [Postgres, MySql] ours_says_so;
    a_guard_of_sqlx_dropped_without_a_runtime_panics [Postgres, Sqlite] raw_panics;
    a_guard_dropped_without_a_runtime_comes_back [Postgres, MySql, Sqlite, Any] ours_comes_back;
}
