//! `close()` that waits says for whom; one that does not is silent.

use std::time::Duration;

use leaktrace::{Config, Detail, Kind, Phase};

use crate::ground::*;

/// At `location`, where only what fails somebody speaks.
fn config() -> Config {
    // Not shorter: opening a connection on a busy machine must not count as an exhaustion.
    Config::default().detail(Detail::Location).wait(SECOND)
}

on_each_database! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_close_that_waits_names_its_holders_and_its_caller() {
        let Some(w) = watched::<DB>(config(), 4).await else { return };
        let one = w.pool.acquire().await.expect("a connection");
        let taken = line!() - 1;
        let two = w.pool.labeled("listener").unreported().begin().await.expect("a transaction");
        let pool = w.pool.clone();
        let called = line!() + 1;
        let close = tokio::spawn(async move { pool.close().await });
        let found = w.finding(Kind::CloseBlocked).await;
        assert_eq!(found.count, 2);
        let holders: Vec<_> = found.holders.iter().map(|holder| holder.label.as_deref()).collect();
        assert_eq!(holders, [None, Some("listener")], "unreported ones too");
        assert!(found.headline.contains(&format!("closing.rs:{called}:")), "{}", found.headline);
        let text = found.to_string();
        assert!(text.contains(&format!("closing.rs:{taken}:")), "{text}");
        assert!(text.contains("label \"listener\""), "{text}");
        drop((one, two));
        close.await.expect("the close ends when its holders are back");
        assert_eq!(w.kinds(), [Kind::CloseBlocked], "said once");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_close_with_everything_back_is_silent() {
        let Some(w) = watched::<DB>(config(), 4).await else { return };
        for _ in 0..3 {
            let mut conn = w.pool.acquire().await.expect("a connection");
            sqlx::query(QUICK).execute(&mut *conn).await.expect("a statement");
        }
        w.all_back().await;
        w.pool.close().await;
        assert!(w.pool.is_closed());
        assert!(w.findings.is_empty(), "{:?}", w.findings.all());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_close_with_a_limit_answers_who_is_still_out() {
        let Some(w) = watched::<DB>(config(), 4).await else { return };
        let conn = w.pool.acquire().await.expect("a connection");
        let taken = line!() - 1;
        let leaks = w.pool.close_within(millis(200)).await.expect_err("one is out");
        assert_eq!(leaks.holders().len(), 1);
        assert_eq!(leaks.holders()[0].acquired_by.as_ref().map(|place| place.line()), Some(taken));
        assert!(leaks.to_string().starts_with("1 connection is not back in the pool\n"), "{leaks}");
        assert!(w.pool.is_closed());
        drop(conn);
        w.pool.close_within(PATIENCE).await.expect("all back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_leaked_on_purpose_is_named_by_close() {
    let w = sqlite(config(), 4).await;
    let raw = w.pool.acquire().await.expect("a connection").leak();
    let leaks = w
        .pool
        .close_within(Duration::from_millis(200))
        .await
        .expect_err("for ever");
    assert_eq!(leaks.holders()[0].phase, Phase::LeakedOnPurpose);
    assert!(
        leaks.to_string().contains("given away with leak()"),
        "{leaks}"
    );
    drop(raw);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_that_is_given_up_is_not_blocked() {
    let w = sqlite(config().wait(millis(300)), 4).await;
    let conn = w.pool.acquire().await.expect("a connection");
    drop(w.pool.close());
    let waited = async || (w.pool.holders()[0].held_for > SECOND).then_some(());
    crate::support::eventually("three times the limit", PATIENCE, waited).await;
    assert!(w.findings.is_empty(), "{:?}", w.findings.all());
    drop(conn);
}
