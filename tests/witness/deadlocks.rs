//! A deadlock among raw loans is only suspected by what was seen: the server settles it.

use std::time::Duration;

use leaktrace::{CauseKind, Config, Kind, PoolOptions};
use sqlx::raw_sql;

use crate::bench::{Bench, PATIENCE, Server, of, on_each_server};
use crate::support::database;

/// So long that half of it is not over when the server has answered, also on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

fn options<DB: Server>(acquire_timeout: Duration) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(2)
        .acquire_timeout(acquire_timeout)
}

on_each_server! {
    #[tokio::test(flavor = "multi_thread")]
    async fn raw_loans_on_which_nothing_runs_are_a_deadlock_for_certain() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::with(&test.url, Config::default(), options(TIMEOUT)).await;
        let both = std::sync::Arc::new(tokio::sync::Barrier::new(2));
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let (pool, both) = (bench.pool.clone(), both.clone());
                tokio::spawn(async move {
                    let mut held = pool.acquire().await.expect("one for each");
                    let raw: &mut Raw = &mut held;
                    raw_sql("SELECT 1").execute(raw).await.expect("an answer");
                    both.wait().await;
                    let _ = tokio::time::timeout(TIMEOUT, pool.acquire()).await;
                })
            })
            .collect();
        let (cause, waited) = bench.findings
            .wait_for("a deadlock", PATIENCE, |all| {
                all.iter().find_map(|finding| {
                    let cause = finding.causes.iter().find(|cause| cause.kind == CauseKind::Deadlock);
                    let waited = finding.waiters.first().map(|waiter| waiter.waited_for);
                    Some((cause?.clone(), waited?))
                })
            })
            .await;
        assert!(!cause.detail.contains("suspected"), "{cause:?}");
        assert!(waited < TIMEOUT / 2, "before it would be suspected: {waited:?}");
        for task in tasks {
            task.abort();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn raw_loans_on_which_statements_run_are_none() {
        let Some(test) = database(DB::DB).await else { return };
        let timeout = Duration::from_secs(6);
        let bench = Bench::<DB>::with(&test.url, Config::default(), options(timeout)).await;
        let both = std::sync::Arc::new(tokio::sync::Barrier::new(2));
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let (pool, both) = (bench.pool.clone(), both.clone());
                tokio::spawn(async move {
                    let mut held = pool.acquire().await.expect("one for each");
                    both.wait().await;
                    let raw: &mut Raw = &mut held;
                    let work = raw_sql(DB::LONG).execute(raw);
                    let (slept, waited) = tokio::join!(work, pool.acquire());
                    slept.expect("slept");
                    assert!(waited.is_err(), "both were out");
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        let exhausted = of(&bench.findings, Kind::Exhausted);
        assert!(!exhausted.is_empty(), "two acquires failed");
        for finding in exhausted {
            let kinds: Vec<_> = finding.causes.iter().map(|cause| cause.kind).collect();
            assert!(!kinds.contains(&CauseKind::Deadlock), "{finding}");
            assert!(!kinds.contains(&CauseKind::Nested), "{finding}");
        }
    }
}
