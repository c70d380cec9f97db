//! `assert_no_leaks!` and `find_leaks`, with their exact words, on both runtimes.

use leaktrace::{Detail, Phase, assert_no_leaks};

use crate::ground::*;
use crate::panics::{masked, panic_of};
use crate::support::eventually;

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn many_threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The same on both kinds of runtime.
fn on_both(test: impl AsyncFn()) {
    current_thread().block_on(test());
    many_threads().block_on(test());
}

#[test]
fn with_everything_back_nothing_is_said() {
    on_both(async || {
        let w = sqlite(silent(), 3).await;
        for _ in 0..3 {
            let mut conn = w.pool.acquire().await.expect("a connection");
            sqlx::query(QUICK)
                .execute(&mut *conn)
                .await
                .expect("a statement");
        }
        sqlx::query(QUICK)
            .execute(&w.pool)
            .await
            .expect("a statement");
        // Right after the drop the pool does not have it back yet.
        assert_no_leaks!(w.pool);
        assert_no_leaks!(w.monitor);
        w.pool.find_leaks(SECOND).await.expect("all back");
    });
}

#[test]
fn each_holder_is_named_with_its_lines_and_its_statement() {
    on_both(async || {
        let w = sqlite(silent(), 4).await;
        let _unused = w.pool.acquire().await.expect("a connection");
        let mut tx = w
            .pool
            .labeled("import")
            .begin()
            .await
            .expect("a transaction");
        sqlx::query(QUICK)
            .execute(&mut *tx)
            .await
            .expect("a statement");
        let mut rows = sqlx::query("SELECT 1 UNION SELECT 2").fetch(&w.pool);
        let _row = futures::StreamExt::next(&mut rows).await;
        let leaks = w.pool.find_leaks(SECOND).await.expect_err("three are out");
        assert_eq!(
            masked(&leaks.to_string()),
            "3 connections are not back in the pool\n  \
             pool \"orders\": Connection acquired at tests/assertions/last_lines.rs:LINE, held, out for TIME\n  \
             pool \"orders\": Transaction \"import\" acquired at tests/assertions/last_lines.rs:LINE, last used at tests/assertions/last_lines.rs:LINE, last statement SELECT ?, held, out for TIME\n  \
             pool \"orders\": Statement on the pool itself, last statement SELECT ? UNION SELECT ?, held, a statement is in flight, out for TIME"
        );
        assert_eq!(leaks.holders().len(), 3);
    });
}

#[test]
fn the_macro_panics_at_its_own_line_with_the_same_words() {
    let runtime = current_thread();
    let (w, conn) = runtime.block_on(async {
        let w = sqlite(silent(), 3).await;
        let conn = w.pool.acquire().await.expect("a connection");
        (w, conn)
    });
    let line = line!() + 1;
    let panic = panic_of(|| runtime.block_on(async { assert_no_leaks!(w.pool) }));
    assert_eq!(
        (panic.file.as_str(), panic.line),
        ("tests/assertions/last_lines.rs", line)
    );
    assert_eq!(
        masked(&panic.text),
        "1 connection is not back in the pool\n  \
         pool \"orders\": Connection acquired at tests/assertions/last_lines.rs:LINE, held, out for TIME"
    );
    let of_the_monitor = panic_of(|| runtime.block_on(async { assert_no_leaks!(w.monitor) }));
    assert_eq!(masked(&of_the_monitor.text), masked(&panic.text));
    runtime.block_on(async {
        drop(conn);
        assert_no_leaks!(w.pool);
    });
}

/// The server is slow to answer the question of the way back, so the connection is still on it.
#[tokio::test]
async fn what_is_on_its_way_is_awaited_and_never_called_leaked() {
    let w = sqlite(silent(), 2).await;
    let mut conn = w.pool.acquire().await.expect("a connection");
    {
        // Cut in the middle: SQLite works on, and the way back has to wait for it.
        let slow = sqlx::query(<sqlx::Sqlite as Ground>::FOUR_SECONDS).execute(&mut *conn);
        let running = async || {
            let holders = w.pool.holders();
            matches!(
                holders.first()?.activity,
                leaktrace::Activity::InFlight { .. }
            )
            .then_some(())
        };
        tokio::select! {
            _ = slow => panic!("it takes seconds"),
            () = eventually("a running statement", PATIENCE, running) => {}
        }
    }
    drop(conn);
    assert_eq!(w.pool.holders()[0].phase, Phase::Returning);
    let leaks = w
        .pool
        .find_leaks(millis(10))
        .await
        .expect_err("still on its way");
    let text = leaks.to_string();
    // With its age, which differs each time.
    let (_, state) = text.split_once(", still returning, for ").expect(&text);
    assert!(state.contains(", out for "), "{text}");
    assert!(!text.contains("leak"), "{text}");
    w.pool.find_leaks(PATIENCE).await.expect("awaited");
}

#[tokio::test]
async fn what_was_given_away_is_named_as_that() {
    let w = sqlite(silent(), 2).await;
    let raw = w.pool.acquire().await.expect("a connection").leak();
    let leaks = w.pool.find_leaks(SECOND).await.expect_err("one is gone");
    assert!(
        leaks
            .to_string()
            .contains(", given away with leak(), out for "),
        "{leaks}"
    );
    let detached = w.pool.acquire().await.expect("a connection").detach();
    assert_eq!(
        w.pool
            .find_leaks(SECOND)
            .await
            .expect_err("the same one")
            .holders()
            .len(),
        1
    );
    drop((raw, detached));
}

/// At `off` there are no records, and still no false comfort.
#[tokio::test]
async fn what_was_checked_out_at_off_is_counted() {
    let w = sqlite(silent().detail(Detail::Off), 3).await;
    assert_no_leaks!(w.pool);
    let conn = w.pool.acquire().await.expect("a connection");
    let leaks = w.pool.find_leaks(SECOND).await.expect_err("one is out");
    assert!(leaks.holders().is_empty());
    assert_eq!(
        leaks.to_string(),
        "1 connection is not back in the pool\n  1 without a record: checked out while the detail was off"
    );
    assert_eq!(
        w.monitor
            .find_leaks(SECOND)
            .await
            .expect_err("one is out")
            .to_string(),
        leaks.to_string()
    );
    drop(conn);
    w.all_back().await;
    assert_no_leaks!(w.pool);
}

/// sqlx cannot acquire under paused time; a test may pause it between.
#[tokio::test]
async fn under_paused_time_what_is_on_its_way_is_awaited_too() {
    let w = sqlite(silent(), 2).await;
    for _ in 0..10 {
        let conn = w.pool.acquire().await.expect("a connection");
        tokio::time::pause();
        drop(conn);
        assert_no_leaks!(w.pool);
        tokio::time::resume();
    }
}

/// What libraries take from the raw pool has no holder, and is out all the same.
#[tokio::test]
async fn what_is_out_through_the_raw_pool_is_counted() {
    let w = sqlite(silent(), 3).await;
    let raw = w.pool.as_sqlx().acquire().await.expect("a connection");
    let begun = sqlx::Acquire::begin(&w.pool).await.expect("sqlx's own");
    let leaks = w
        .pool
        .find_leaks(millis(50))
        .await
        .expect_err("two are out");
    assert!(leaks.holders().is_empty());
    let text = leaks.to_string();
    assert!(
        text.starts_with("2 connections are not back in the pool\n"),
        "{text}"
    );
    assert!(
        text.contains("2 out through the raw pool, which was handed out at"),
        "{text}"
    );
    assert!(text.contains("last_lines.rs:"), "{text}");
    drop((raw, begun));
    leaktrace::assert_no_leaks!(w.pool);
}

/// Handing the raw pool out is no leak, and neither is what it is used for in passing.
#[tokio::test]
async fn a_raw_pool_that_was_used_and_is_at_rest_is_no_leak() {
    let w = sqlite(silent(), 3).await;
    for _ in 0..20 {
        let raw = w.pool.as_sqlx().clone();
        let run = sqlx::query("SELECT 1").execute(&raw).await;
        run.expect("a row");
        leaktrace::assert_no_leaks!(w.pool);
    }
}
