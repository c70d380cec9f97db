//! R4 and R5: a commit that is cut in flight.

use crate::stage::{cut, ours, raw};

/// R4. Cuts the commit of one row at each poll; answers at how many the row is there all the same.
macro_rules! cut_commits {
    ($pool:expr, $stage:expr) => {{
        let (mut cuts, mut there) = (0, 0);
        for polls in (0..crate::stage::ROUNDS).flat_map(|_| 1..20) {
            let mut tx = $pool.begin().await.expect("a transaction");
            sqlx::query("INSERT INTO t VALUES (7)")
                .execute(&mut *tx)
                .await
                .expect("a row");
            let before = $stage.rows().await;
            let done = cut(tx.commit(), polls).await.is_some();
            assert!(
                next_borrower_is_clean!($pool, $stage),
                "after {polls} polls"
            );
            // The row, and that of the next borrower.
            let committed = $stage.rows().await == before + 2;
            if done {
                assert!(committed, "told so, and it is not");
                if cuts > 0 {
                    break;
                }
                continue;
            }
            cuts += 1;
            there += usize::from(committed);
        }
        assert!(cuts > 0);
        there
    }};
}

macro_rules! raw_commit {
    ($db:ty, $stage:ident) => {{
        let pool = raw::<$db>(&$stage, 1).await;
        assert!(
            cut_commits!(pool, $stage) > 0,
            "a commit that was sent is done"
        );
    }};
}

macro_rules! our_commit {
    ($db:ty, $stage:ident) => {{
        let (pool, _) = ours::<$db>(&$stage, 1).await;
        cut_commits!(pool, $stage);
        leaktrace::assert_no_leaks!(pool);
        assert_eq!(pool.size(), 1, "healed, not closed");
    }};
}

/// R5. Cuts the commit of a savepoint; answers how often the outer commit said `Ok` and the outer
/// row was not there.
macro_rules! cut_savepoints {
    ($pool:expr, $stage:expr) => {{
        let (mut cuts, mut silent) = (0, 0);
        for polls in (0..crate::stage::ROUNDS).flat_map(|_| 1..20) {
            let before = $stage.rows().await;
            let mut tx = $pool.begin().await.expect("a transaction");
            sqlx::query("INSERT INTO t VALUES (1)")
                .execute(&mut *tx)
                .await
                .expect("a row");
            let mut nested = tx.begin().await.expect("a savepoint");
            sqlx::query("INSERT INTO t VALUES (2)")
                .execute(&mut *nested)
                .await
                .expect("a row");
            let done = cut(nested.commit(), polls).await.is_some();
            // Code that does not look at every error.
            let _ = sqlx::query("INSERT INTO t VALUES (3)")
                .execute(&mut *tx)
                .await;
            let outer = tx.commit().await;
            let there = $stage.rows().await - before;
            if outer.is_ok() && there == 0 {
                silent += 1;
            }
            if outer.is_err() {
                assert_eq!(there, 0, "told of a failure, and it is there");
            }
            assert!(
                next_borrower_is_clean!($pool, $stage),
                "after {polls} polls"
            );
            if done {
                assert_eq!((outer.is_ok(), there), (true, 3));
                if cuts > 0 {
                    break;
                }
                continue;
            }
            cuts += 1;
        }
        assert!(cuts > 0);
        silent
    }};
}

macro_rules! raw_savepoint {
    ($db:ty, $stage:ident) => {{
        let pool = raw::<$db>(&$stage, 1).await;
        assert!(cut_savepoints!(pool, $stage) > 0, "sqlx has changed");
    }};
}

macro_rules! our_savepoint {
    ($db:ty, $stage:ident) => {{
        let (pool, _) = ours::<$db>(&$stage, 1).await;
        assert_eq!(cut_savepoints!(pool, $stage), 0);
        leaktrace::assert_no_leaks!(pool);
        assert_eq!(pool.size(), 1, "healed, not closed");
    }};
}

on_each! {
    a_cut_commit_of_sqlx_may_be_done [Postgres, MySql, Sqlite] raw_commit;
    after_a_cut_commit_the_next_borrower_is_clean [Postgres, MySql, Sqlite, Any] our_commit;
    a_cut_savepoint_of_sqlx_loses_the_outer_transaction_in_silence [Postgres] raw_savepoint;
    a_cut_savepoint_never_loses_the_outer_transaction_in_silence [Postgres, MySql, Sqlite, Any] our_savepoint;
}
