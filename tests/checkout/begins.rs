//! Each door of the pool begins a record with its kind and its line; a refused one begins none.

use leaktrace::{Holder, HolderKind, Phase, Pool};
use sqlx::{Acquire, Database};

use crate::ground::*;

fn only<DB: Database>(pool: &Pool<DB>) -> Holder {
    let mut holders = pool.holders();
    holders.retain(|holder| holder.phase == Phase::Held);
    assert_eq!(holders.len(), 1, "{holders:?}");
    holders.remove(0)
}

fn began<DB: Database>(pool: &Pool<DB>, kind: HolderKind, line: u32) {
    let holder = only(pool);
    assert_eq!(holder.kind, kind);
    let place = holder.acquired_by.expect("a line");
    assert_eq!(
        (place.file().as_str(), place.line()),
        ("tests/checkout/begins.rs", line)
    );
    assert_eq!(holder.in_transaction, kind == HolderKind::Transaction);
    assert_eq!(holder.uses, 0, "nothing of the user's has run");
    assert_eq!(pool.status().held, 1);
}

on_each_database! {
    #[tokio::test]
    async fn each_door_begins_a_record_with_its_line() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let pool = &w.pool;
        use HolderKind::{Connection, Transaction};

        let conn = pool.acquire().await.expect("acquire");
        began(pool, Connection, line!() - 1);
        drop(conn);
        w.all_back().await;
        let conn = w.pool.clone().acquire().await.expect("acquire of a clone");
        began(pool, Connection, line!() - 1);
        drop(conn);
        w.all_back().await;
        let conn = pool.try_acquire().expect("an idle one");
        began(pool, Connection, line!() - 1);
        drop(conn);
        w.all_back().await;
        let tx = pool.begin().await.expect("begin");
        began(pool, Transaction, line!() - 1);
        drop(tx);
        w.all_back().await;
        let tx = pool.try_begin().await.expect("try_begin").expect("an idle one");
        began(pool, Transaction, line!() - 1);
        drop(tx);
        w.all_back().await;
        let tx = pool.begin_with("BEGIN").await.expect("begin_with");
        began(pool, Transaction, line!() - 1);
        drop(tx);
        w.all_back().await;
        let tx = pool.try_begin_with("BEGIN").await.expect("try_begin_with").expect("an idle one");
        began(pool, Transaction, line!() - 1);
        drop(tx);
        w.all_back().await;
        let acquired = Acquire::acquire(pool).await.expect("sqlx's Acquire");
        began(pool, Connection, line!() - 1);
        drop(acquired);
        w.all_back().await;
        let done = pool.transaction(async |_| { began(pool, Transaction, line!()); Ok::<_, sqlx::Error>(()) });
        done.await.expect("a commit");
        w.all_back().await;
        assert!(pool.holders().is_empty());
    }

    #[tokio::test]
    async fn the_line_is_that_of_the_call_and_not_of_the_await() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let call = line!() + 1;
        let later = w.pool.acquire();
        assert!(w.pool.holders().is_empty(), "nothing happens before the await");
        let _conn = later.await.expect("a connection");
        began(&w.pool, HolderKind::Connection, call);
    }

    #[tokio::test]
    async fn a_door_that_is_refused_begins_no_record() {
        let Some(w) = watched::<DB>(silent(), 1).await else { return };
        let conn = w.pool.acquire().await.expect("a connection");
        assert!(w.pool.try_acquire().is_none());
        assert!(w.pool.try_begin().await.expect("no error").is_none());
        let mut waiting = Box::pin(w.pool.acquire());
        let waits = async || w.pool.status().waiting == 1;
        tokio::select! {
            _ = &mut waiting => panic!("there is none"),
            () = crate::support::eventually("a waiter", PATIENCE, waits) => {}
        }
        assert_eq!(w.monitor.waiters().len(), 1);
        drop(waiting);
        assert_eq!(w.pool.status().waiting, 0);
        assert!(w.monitor.waiters().is_empty());
        assert_eq!(w.pool.holders().len(), 1);
        drop(conn);
        w.all_back().await;
        w.pool.begin_with("SELECT 1").await.expect_err("it opens no transaction");
        w.all_back().await;
        assert!(w.pool.holders().is_empty());
    }
}

#[tokio::test]
async fn who_waited_before_it_was_granted_has_its_wait_in_the_record() {
    let w = sqlite(silent(), 1).await;
    let conn = w.pool.acquire().await.expect("a connection");
    let pool = w.pool.clone();
    let waiter = tokio::spawn(async move { pool.acquire().await.expect("granted later") });
    let waits = async || {
        let waiters = w.monitor.waiters();
        (waiters.first()?.waited_for > millis(50)).then_some(())
    };
    crate::support::eventually("a waiter of some age", PATIENCE, waits).await;
    drop(conn);
    let _second = waiter.await.expect("the waiter");
    assert!(only(&w.pool).waited_for > millis(50));
}

#[tokio::test]
async fn a_record_knows_its_task_its_span_and_its_scope() {
    let w = sqlite(silent(), 1).await;
    let pool = w.pool.clone();
    let events = crate::support::Events::new();
    let _here = events.here();
    let task = tokio::spawn(async move {
        let me = tokio::task::id().to_string();
        let job = leaktrace::Scope::new("nightly invoices");
        let conn = job
            .run(async { pool.acquire().await.expect("a connection") })
            .await;
        let holder = only(&pool);
        assert_eq!(holder.task_id, Some(me));
        assert_eq!(
            serde_json::to_value(&holder.scope).expect("JSON")["route"],
            "nightly invoices"
        );
        drop(conn);
    });
    task.await.expect("the task");
    w.all_back().await;
    use tracing::Instrument;
    let conn = async { w.pool.acquire().await.expect("a connection") }
        .instrument(tracing::info_span!("checkout of the test"))
        .await;
    let span = only(&w.pool).span.expect("a span");
    assert_eq!(span.name, "checkout of the test");
    drop(conn);
}
