//! `leak_check`: what was checked out in a block must not outlive it.

use leaktrace::Detail;

use crate::ground::*;
use crate::panics::{masked, panic_of};

#[tokio::test]
async fn a_block_that_gives_everything_back_passes() {
    let w = sqlite(silent(), 3).await;
    let before = w.pool.acquire().await.expect("a connection");
    {
        let _check = w.pool.leak_check();
        let conn = w.pool.acquire().await.expect("a connection");
        drop(conn);
    }
    {
        let _check = w.monitor.leak_check();
        sqlx::query(QUICK)
            .execute(&w.pool)
            .await
            .expect("a statement");
    }
    drop(before);
}

#[test]
fn a_block_that_keeps_a_connection_panics_and_names_it() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let w = runtime.block_on(sqlite(silent(), 3));
    let _before = runtime.block_on(w.pool.acquire()).expect("a connection");
    for monitor in [false, true] {
        let mut kept = None;
        let panic = panic_of(|| {
            let _check = match monitor {
                true => w.monitor.leak_check(),
                false => w.pool.leak_check(),
            };
            kept = Some(runtime.block_on(w.pool.acquire()).expect("a connection"));
        });
        assert_eq!(
            masked(&panic.text),
            "leak check of tests/assertions/blocks.rs:LINE 1 connection is not back in the pool\n  \
             pool \"orders\": Connection acquired at tests/assertions/blocks.rs:LINE, held, out for TIME"
        );
        let _inside = runtime.enter();
        drop(kept);
        drop(_inside);
        runtime
            .block_on(w.pool.find_leaks(millis(1)))
            .expect_err("the one from before");
    }
    let _inside = runtime.enter();
}

#[test]
fn while_unwinding_it_adds_no_panic_of_its_own() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let w = runtime.block_on(sqlite(silent(), 3));
    let mut kept = None;
    let panic = panic_of(|| {
        let _check = w.pool.leak_check();
        kept = Some(runtime.block_on(w.pool.acquire()).expect("a connection"));
        panic!("the test's own failure");
    });
    assert_eq!(panic.text, "the test's own failure");
    let _inside = runtime.enter();
    drop(kept);
}

#[tokio::test]
async fn it_raises_the_detail_while_it_lives() {
    let w = sqlite(silent().detail(Detail::Off), 3).await;
    let outer = w.pool.leak_check();
    assert_eq!(w.monitor.detail(), Detail::Location);
    {
        let _inner = w.monitor.leak_check();
        assert_eq!(w.monitor.detail(), Detail::Location);
    }
    assert_eq!(w.monitor.detail(), Detail::Location, "the outer one lives");
    let conn = w.pool.acquire().await.expect("a connection");
    assert_eq!(w.pool.holders().len(), 1);
    drop(conn);
    drop(outer);
    assert_eq!(w.monitor.detail(), Detail::Off);
    let higher = sqlite(silent(), 1).await;
    let _check = higher.pool.leak_check();
    assert_eq!(higher.monitor.detail(), Detail::Backtrace, "never lowered");
}

#[tokio::test]
async fn a_pools_check_looks_at_its_own_pool_only() {
    let w = sqlite(silent(), 3).await;
    let raw = sqlx::SqlitePool::connect_lazy("sqlite::memory:").expect("a pool");
    let other = w.monitor.watch("other", raw);
    let check = w.pool.leak_check();
    let _conn = other.acquire().await.expect("a connection");
    drop(check);
}
