//! R8 and R9: a nested `begin` that is cut or refused.

use crate::stage::{cut, ours, raw};

/// R8. Insert 1, cut a nested begin, insert 2, roll back: how often row 2 is in the table.
macro_rules! strays {
    ($pool:expr, $stage:expr) => {{
        let (mut cuts, mut strays) = (0, 0);
        for polls in (0..crate::stage::ROUNDS).flat_map(|_| 1..20) {
            let before = $stage.rows().await;
            let mut tx = $pool.begin().await.expect("a transaction");
            sqlx::query("INSERT INTO t VALUES (1)")
                .execute(&mut *tx)
                .await
                .expect("a row");
            let done = cut(tx.begin(), polls).await.map(drop).is_some();
            let second = sqlx::query("INSERT INTO t VALUES (2)")
                .execute(&mut *tx)
                .await;
            let rolled_back = tx.rollback().await;
            assert!(rolled_back.is_ok(), "{rolled_back:?}");
            if $stage.rows().await != before {
                strays += 1;
            }
            assert!(
                next_borrower_is_clean!($pool, $stage),
                "after {polls} polls"
            );
            if done {
                assert!(second.is_ok(), "{second:?}");
                if cuts > 0 {
                    break;
                }
                continue;
            }
            cuts += 1;
        }
        assert!(cuts > 0);
        strays
    }};
}

macro_rules! raw_strays {
    ($db:ty, $stage:ident) => {{
        let pool = raw::<$db>(&$stage, 1).await;
        assert!(strays!(pool, $stage) > 0, "sqlx has changed");
    }};
}

macro_rules! ours_does_not {
    ($db:ty, $stage:ident) => {{
        let (pool, _) = ours::<$db>(&$stage, 1).await;
        assert_eq!(strays!(pool, $stage), 0);
        leaktrace::assert_no_leaks!(pool);
        assert_eq!(pool.size(), 1, "healed, not closed");
    }};
}

/// R9. A nested begin that is refused, because the transaction is aborted; then `commit()`.
macro_rules! commit_after_refusal {
    ($pool:expr) => {{
        let mut tx = $pool.begin().await.expect("a transaction");
        sqlx::query("INSERT INTO t VALUES (1)")
            .execute(&mut *tx)
            .await
            .expect("a row");
        let failed = sqlx::query("SELECT nothing FROM nowhere")
            .execute(&mut *tx)
            .await;
        assert!(failed.is_err());
        assert!(
            tx.begin().await.is_err(),
            "an aborted transaction takes no savepoint"
        );
        tx.commit().await
    }};
}

macro_rules! raw_says_ok {
    ($db:ty, $stage:ident) => {{
        let pool = raw::<$db>(&$stage, 1).await;
        let committed = commit_after_refusal!(pool);
        assert!(committed.is_ok(), "sqlx has changed: {committed:?}");
        assert_eq!($stage.rows().await, 0);
    }};
}

macro_rules! ours_says_no {
    ($db:ty, $stage:ident) => {{
        let (pool, _) = ours::<$db>(&$stage, 1).await;
        let committed = commit_after_refusal!(pool);
        let error = committed.expect_err("nothing was saved");
        assert!(
            error.to_string().contains("nothing of it is saved"),
            "{error}"
        );
        assert_eq!($stage.rows().await, 0);
        assert!(next_borrower_is_clean!(pool, $stage));
    }};
}

/// A connection that is kept is usable again once the doomed transaction is over.
macro_rules! ours_goes_on {
    ($db:ty, $stage:ident) => {{
        let (pool, _) = ours::<$db>(&$stage, 1).await;
        let mut conn = pool.acquire().await.expect("a connection");
        for polls in 1..20 {
            let mut tx = conn.begin().await.expect("a transaction");
            sqlx::query("INSERT INTO t VALUES (1)")
                .execute(&mut *tx)
                .await
                .expect("a row");
            let done = cut(tx.begin(), polls).await.map(drop).is_some();
            drop(tx);
            let before = $stage.rows().await;
            sqlx::query("INSERT INTO t VALUES (2)")
                .execute(&mut *conn)
                .await
                .expect("a row");
            assert_eq!(
                $stage.rows().await,
                before + 1,
                "autocommit again, after {polls} polls"
            );
            if done {
                break;
            }
        }
    }};
}

on_each! {
    a_cut_nested_begin_of_sqlx_lets_statements_stray_from_the_transaction [Postgres, Sqlite] raw_strays;
    after_a_cut_nested_begin_nothing_strays [Postgres, MySql, Sqlite, Any] ours_does_not;
    a_refused_nested_begin_of_sqlx_ends_in_ok [Postgres] raw_says_ok;
    a_refused_nested_begin_ends_in_an_error [Postgres] ours_says_no;
    after_a_doomed_transaction_a_kept_connection_goes_on [Postgres, MySql, Sqlite, Any] ours_goes_on;
}
