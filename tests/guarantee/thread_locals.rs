//! Guards in thread-local values: they are dropped when their thread ends, perhaps after everything
//! that tokio keeps for that thread. A panic there would end the process.

use std::cell::RefCell;

use leaktrace::{PoolConnection, Transaction};
use sqlx::Sqlite;
use tokio::runtime::{Handle, Runtime};

use crate::stage::{LONG, Stage, ours};
use crate::support::{Db, eventually};

thread_local! {
    static KEPT: RefCell<Option<(PoolConnection<Sqlite>, Transaction<'static, Sqlite>)>> =
        const { RefCell::new(None) };
}

/// Values are dropped in the reverse order of their first use, as far as anybody promises it: both
/// orders are tried. `gone`: the runtime has ended before the thread does.
fn kept_to_the_end_of_a_thread(gone: bool, tokio_first: bool) {
    let runtime = Runtime::new().expect("a runtime");
    let second = Runtime::new().expect("a runtime");
    let (stage, pool, guards) = runtime.block_on(async {
        let stage = Stage::set(Db::Sqlite).await.expect("it is always there");
        let (pool, _) = ours::<Sqlite>(&stage, 2).await;
        let conn = pool.acquire().await.expect("a connection");
        let mut tx = pool.begin().await.expect("a transaction");
        sqlx::query("INSERT INTO t VALUES (1)")
            .execute(&mut *tx)
            .await
            .expect("a row");
        (stage, pool, (conn, tx))
    });
    let runtime = (!gone).then_some(runtime);
    let thread = std::thread::spawn(move || {
        if tokio_first {
            assert!(Handle::try_current().is_err());
        }
        KEPT.with(|kept| *kept.borrow_mut() = Some(guards));
        assert!(Handle::try_current().is_err());
    });
    thread.join().expect("the thread ends");
    let mut stage = stage;
    second.block_on(async {
        eventually("both are back", LONG, async || pool.holders().is_empty()).await;
        leaktrace::assert_no_leaks!(pool);
        let both = (pool.acquire().await, pool.acquire().await);
        assert!(both.0.is_ok() && both.1.is_ok(), "no permit is lost");
        drop(both);
        leaktrace::assert_no_leaks!(pool);
        assert_eq!(stage.rows().await, 0, "rolled back");
    });
    drop(runtime);
}

#[test]
fn a_guard_kept_to_the_end_of_its_thread_comes_back() {
    kept_to_the_end_of_a_thread(false, false);
    kept_to_the_end_of_a_thread(false, true);
}

#[test]
fn a_guard_kept_to_the_end_of_its_thread_with_its_runtime_gone_is_closed() {
    kept_to_the_end_of_a_thread(true, false);
    kept_to_the_end_of_a_thread(true, true);
}
