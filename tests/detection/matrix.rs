//! What each way of using a connection shows: {running, idle, failed} on each database.
//!
//! A claim never says more than was seen: everything for executors, the line and the time of the
//! loan for a raw connection.

use leaktrace::HolderKind;

use crate::ground::*;

on_each_database! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dereferenced_connection_shows_everything() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let mut conn = w.pool.acquire().await.expect("a connection");
        let taken = line!() - 1;
        w.sees(seen("idle", None, None, 0)).await;

        let line = line!() + 1;
        let running = sqlx::query(DB::SLOW).execute(&mut *conn);
        let (holder, done) = tokio::join!(
            w.sees(seen("in_flight", Some(line), Some(DB::SLOW_SHOWN), 1)),
            running
        );
        done.expect("a slow statement");
        assert_eq!(holder.kind, HolderKind::Connection);
        assert_eq!(holder.acquired_by.map(|place| place.line()), Some(taken));
        assert!(!holder.in_transaction);
        w.sees(seen("idle", Some(line), Some(DB::SLOW_SHOWN), 1)).await;

        let line = line!() + 1;
        sqlx::query(QUICK).execute(&mut *conn).await.expect("a quick statement");
        w.sees(seen("idle", Some(line), Some(QUICK_SHOWN), 2)).await;
        let line = line!() + 1;
        sqlx::query(WRONG).execute(&mut *conn).await.expect_err("no such table");
        w.sees(seen("idle", Some(line), Some("SELECT ? FROM no_such_table"), 3)).await;
        let report = w.monitor.report().to_string();
        let last_used = format!("last used  tests/detection/matrix.rs:{line}:");
        assert!(report.contains(&last_used), "{report}");
        assert!(report.contains(&format!("tests/detection/matrix.rs:{taken}:")), "{report}");
        assert!(report.contains(", idle for "), "{report}");
        assert!(!report.contains("4711"), "{report}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dereferenced_transaction_shows_everything() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let mut tx = w.pool.begin().await.expect("a transaction");
        w.sees(seen("idle", None, None, 0)).await;

        let line = line!() + 1;
        let running = sqlx::query(DB::SLOW).execute(&mut *tx);
        let (holder, done) = tokio::join!(
            w.sees(seen("in_flight", Some(line), Some(DB::SLOW_SHOWN), 1)),
            running
        );
        done.expect("a slow statement");
        assert_eq!(holder.kind, HolderKind::Transaction);
        assert!(holder.in_transaction);
        assert!(!holder.is_idle_in_transaction());
        let holder = w.sees(seen("idle", Some(line), Some(DB::SLOW_SHOWN), 1)).await;
        assert!(holder.is_idle_in_transaction());

        let line = line!() + 1;
        sqlx::query(WRONG).execute(&mut *tx).await.expect_err("no such table");
        let holder = w.sees(seen("idle", Some(line), Some("SELECT ? FROM no_such_table"), 2)).await;
        assert!(holder.is_idle_in_transaction(), "refused is not ended");
        tx.rollback().await.expect("a rollback");
        w.all_back().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_guard_as_executor_shows_everything_but_the_line() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let mut conn = w.pool.acquire().await.expect("a connection");
        let running = sqlx::query(DB::SLOW).execute(&mut conn);
        let (_, done) = tokio::join!(
            w.sees(seen("in_flight", None, Some(DB::SLOW_SHOWN), 1)),
            running
        );
        done.expect("a slow statement");
        w.sees(seen("idle", None, Some(DB::SLOW_SHOWN), 1)).await;
        sqlx::query(WRONG).execute(&mut conn).await.expect_err("no such table");
        w.sees(seen("idle", None, Some("SELECT ? FROM no_such_table"), 2)).await;
        // An older line must not be taken for that of a later statement.
        let line = line!() + 1;
        sqlx::query(QUICK).execute(&mut *conn).await.expect("a quick statement");
        w.sees(seen("idle", Some(line), Some(QUICK_SHOWN), 3)).await;
        sqlx::query(QUICK).execute(&mut conn).await.expect("a quick statement");
        w.sees(seen("idle", None, Some(QUICK_SHOWN), 4)).await;
        drop(conn);
        w.all_back().await;

        let mut tx = w.pool.begin().await.expect("a transaction");
        sqlx::query(QUICK).execute(&mut tx).await.expect("a quick statement");
        let holder = w.sees(seen("idle", None, Some(QUICK_SHOWN), 1)).await;
        assert!(holder.is_idle_in_transaction());
    }

    async fn helper(conn: &mut Raw, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(sql).execute(&mut *conn).await.map(|_| ())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_raw_loan_shows_its_line_and_nothing_after() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let mut conn = w.pool.acquire().await.expect("a connection");
        sqlx::query(QUICK).execute(&mut *conn).await.expect("a quick statement");

        let line = line!() + 1;
        let running = helper(&mut conn, DB::SLOW);
        let (holder, done) = tokio::join!(w.sees(seen("unknown", Some(line), None, 2)), running);
        done.expect("a slow statement");
        let lent_at = holder.last_used_at;
        let holder = w.sees(seen("unknown", Some(line), None, 2)).await;
        assert_eq!(holder.last_used_at, lent_at, "nothing is seen after the loan");

        let line = line!() + 1;
        helper(&mut conn, WRONG).await.expect_err("no such table");
        w.sees(seen("unknown", Some(line), None, 3)).await;
        let report = w.monitor.report().to_string();
        assert!(report.contains("lent as a raw connection"), "{report}");
        assert!(report.contains("what runs there was not seen"), "{report}");
        assert!(!report.contains("idle"), "{report}");

        // From the next statement that is seen, all is known again.
        let line = line!() + 1;
        sqlx::query(QUICK).execute(&mut *conn).await.expect("a quick statement");
        w.sees(seen("idle", Some(line), Some(QUICK_SHOWN), 4)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_raw_loan_of_a_transaction_is_not_known_to_be_idle() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let mut tx = w.pool.begin().await.expect("a transaction");
        let line = line!() + 1;
        helper(&mut tx, QUICK).await.expect("a quick statement");
        let holder = w.sees(seen("unknown", Some(line), None, 1)).await;
        assert!(holder.in_transaction);
        assert!(!holder.is_idle_in_transaction());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_statement_on_the_pool_is_a_holder_while_it_runs() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let running = sqlx::query(DB::SLOW).execute(&w.pool);
        let (holder, done) = tokio::join!(
            w.sees(seen("in_flight", None, Some(DB::SLOW_SHOWN), 1)),
            running
        );
        done.expect("a slow statement");
        assert_eq!(holder.kind, HolderKind::Statement);
        assert_eq!(holder.acquired_by, None, "its caller is sqlx");
        w.all_back().await;
        assert!(w.pool.holders().is_empty());
        sqlx::query(WRONG).execute(&w.pool).await.expect_err("no such table");
        w.all_back().await;
        assert!(w.pool.holders().is_empty());
    }
}
