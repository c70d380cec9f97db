//! Each way out ends the record, or keeps it, as it says.

use leaktrace::{Kind, Phase};

use crate::ground::*;
use crate::support::eventually;

on_each_database! {
    #[tokio::test]
    async fn a_drop_ends_the_hold_at_once_and_the_record_when_the_pool_has_it_back() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let conn = w.pool.acquire().await.expect("a connection");
        drop(conn);
        let status = w.pool.status();
        assert_eq!((status.held, status.returning), (0, 1), "on its way, and not held");
        assert_eq!(w.pool.holders()[0].phase, Phase::Returning);
        w.all_back().await;
        assert!(w.pool.holders().is_empty());
        assert_eq!(w.pool.num_idle(), 1);
    }

    #[tokio::test]
    async fn release_ends_when_the_pool_has_it_back() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        for _ in 0..20 {
            let mut conn = w.pool.acquire().await.expect("a connection");
            sqlx::query(QUICK).execute(&mut *conn).await.expect("a statement");
            conn.release().await;
            assert_eq!(w.pool.num_idle(), 1);
            assert!(w.pool.holders().is_empty());
            let status = w.pool.status();
            assert_eq!((status.held, status.returning), (0, 0));
        }
    }

    #[tokio::test]
    async fn detach_ends_the_record_and_the_connection_lives_on() {
        let Some(w) = watched::<DB>(silent(), 1).await else { return };
        let mut raw = w.pool.acquire().await.expect("a connection").detach();
        assert!(w.pool.holders().is_empty());
        let status = w.pool.status();
        assert_eq!((status.held, status.returning), (0, 0));
        sqlx::query(QUICK).execute(&mut raw).await.expect("its own life");
        let _another = w.pool.acquire().await.expect("the permit is free");
        assert_eq!(w.pool.status().held, 1);
    }

    #[tokio::test]
    async fn leak_keeps_the_record_and_is_never_called_late() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let raw = w.pool.acquire().await.expect("a connection").leak();
        aged(&w.pool, millis(20)).await;
        w.monitor.set_threshold(millis(10));
        drop(raw);
        let holder = w.pool.holders().pop().expect("it stays listed");
        assert_eq!(holder.phase, Phase::LeakedOnPurpose);
        assert!(!holder.overdue);
        assert_eq!(w.pool.status().held, 1, "its permit never comes back");
        assert!(w.monitor.report().to_string().contains("leaked on purpose"));
        // Somebody who is late, so that the watchdog has looked since.
        let _late = w.pool.acquire().await.expect("a connection");
        let found = w.finding(Kind::HeldTooLong).await;
        assert_eq!(found.count, 1);
        assert_ne!(found.holders[0].id, holder.id);
    }

    #[tokio::test]
    async fn close_ends_the_record_and_the_connection() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let conn = w.pool.acquire().await.expect("a connection");
        assert_eq!(w.pool.size(), 1);
        conn.close().await.expect("a close");
        assert!(w.pool.holders().is_empty());
        assert_eq!(w.pool.size(), 0);
        assert_eq!(w.pool.status().held, 0);
    }

    #[tokio::test]
    async fn close_on_drop_closes_instead_of_returning() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let mut conn = w.pool.acquire().await.expect("a connection");
        conn.close_on_drop();
        assert_eq!(w.pool.holders().len(), 1);
        drop(conn);
        w.all_back().await;
        assert!(w.pool.holders().is_empty());
        eventually("a closed connection", PATIENCE, async || w.pool.size() == 0).await;
    }

    #[tokio::test]
    async fn commit_rollback_and_discard_end_the_record() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let tx = w.pool.begin().await.expect("a transaction");
        tx.commit().await.expect("a commit");
        w.all_back().await;
        let tx = w.pool.begin().await.expect("a transaction");
        tx.rollback().await.expect("a rollback");
        w.all_back().await;
        let tx = w.pool.begin().await.expect("a transaction");
        tx.discard();
        w.all_back().await;
        assert!(w.pool.holders().is_empty());
        assert_eq!(w.pool.num_idle(), 1);
    }
}

#[tokio::test]
async fn what_was_forgotten_stays_and_is_reported() {
    let w = sqlite(silent(), 2).await;
    std::mem::forget(w.pool.acquire().await.expect("a connection"));
    let line = line!() - 1;
    aged(&w.pool, millis(20)).await;
    w.monitor.set_threshold(millis(10));
    let found = w.finding(Kind::HeldTooLong).await;
    let place = found.holders[0].acquired_by.clone().expect("a line");
    assert_eq!(place.line(), line);
    assert!(w.pool.holders()[0].overdue);
    assert_eq!(w.pool.status().held, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_the_record() {
    let w = sqlite(silent(), 2).await;
    let pool = w.pool.clone();
    let task = tokio::spawn(async move {
        let _conn = pool.acquire().await.expect("a connection");
        panic!("a bug of the user");
    });
    assert!(task.await.expect_err("it panicked").is_panic());
    w.all_back().await;
    assert!(w.pool.holders().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_task_ends_the_record() {
    let w = sqlite(silent(), 2).await;
    let pool = w.pool.clone();
    let task = tokio::spawn(async move {
        let mut conn = pool.acquire().await.expect("a connection");
        sqlx::query(<sqlx::Sqlite as Ground>::SLOW)
            .execute(&mut *conn)
            .await
    });
    let running = async || {
        let holders = w.pool.holders();
        matches!(
            holders.first()?.activity,
            leaktrace::Activity::InFlight { .. }
        )
        .then_some(())
    };
    eventually("a running statement", PATIENCE, running).await;
    task.abort();
    assert!(task.await.expect_err("aborted").is_cancelled());
    w.all_back().await;
    assert!(w.pool.holders().is_empty());
}

#[test]
fn a_drop_outside_of_any_runtime_ends_the_record() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (w, conn) = runtime.block_on(async {
        let w = sqlite(silent(), 2).await;
        let conn = w.pool.acquire().await.expect("a connection");
        (w, conn)
    });
    drop(conn);
    runtime.block_on(w.all_back());
    assert!(w.pool.holders().is_empty());
    assert_eq!(w.pool.num_idle(), 1);
    let _inside = runtime.enter();
    drop(w);
}
