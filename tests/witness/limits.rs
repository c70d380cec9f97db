//! When the server is asked, how often, and that it can be left alone: counted by a proxy in front of
//! it.

use std::time::Duration;

use leaktrace::{Config, Detail, Kind, Monitor};
use sqlx::raw_sql;

use crate::bench::{Bench, PATIENCE, Server, loud, of, oldest, on_each_server};
use crate::support::{Proxy, database, eventually};

/// How many connections are made for the pool alone.
const POOL: u64 = 3;

/// Holds all connections of a pool of three, lent raw, until each was reported, or `reported` are.
async fn hold<DB: Server>(bench: &Bench<DB>, reported: usize)
where
    for<'c> &'c mut DB::Connection: sqlx::Executor<'c, Database = DB>,
{
    let mut one = bench.pool.acquire().await.expect("a connection");
    let mut two = bench.pool.acquire().await.expect("a connection");
    let mut three = bench.pool.acquire().await.expect("a connection");
    for conn in [&mut one, &mut two, &mut three] {
        let raw: &mut DB::Connection = conn;
        raw_sql("SELECT 1").execute(raw).await.expect("an answer");
    }
    let pool = bench.pool.clone();
    eventually("all overdue", PATIENCE, async || {
        pool.holders().iter().all(|holder| holder.overdue)
    })
    .await;
    let count = |all: &[leaktrace::Finding]| (all.len() >= reported).then_some(());
    bench.findings.wait_for("findings", PATIENCE, count).await;
    drop((one, two, three));
}

on_each_server! {
    #[tokio::test(flavor = "multi_thread")]
    async fn all_holders_of_a_pool_are_asked_about_in_one_question() {
        let Some(test) = database(DB::DB).await else { return };
        let proxy = Proxy::start(&test.url);
        let bench = Bench::<DB>::at(&proxy.url(&test.url), loud(), 3).await;
        hold(&bench, 3).await;
        let findings = of(&bench.findings, Kind::HeldTooLong);
        for finding in &findings {
            assert!(oldest(finding).server.is_some(), "{finding}");
        }
        let side = proxy.accepted() - POOL;
        // The first question needs a second connection: whether backends are shared.
        let (first, last) = (oldest(&findings[0]).acquired_at, oldest(&findings[2]).acquired_at);
        let apart = last.duration_since(first).expect("the oldest first");
        // On a machine so busy that they were acquired one by one, one more may be asked.
        let most = if apart < Duration::from_millis(150) { 2 } else { 3 };
        assert!((2..=most).contains(&side), "three holders, three findings, {side} connections");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_question_needs_one_connection() {
        let Some(test) = database(DB::DB).await else { return };
        let proxy = Proxy::start(&test.url);
        let bench = Bench::<DB>::at(&proxy.url(&test.url), loud().report_interval(Duration::from_millis(1)), 3).await;
        hold(&bench, 3).await;
        let first = proxy.accepted() - POOL;
        bench.findings.take();
        hold(&bench, 3).await;
        let second = proxy.accepted() - POOL - first;
        assert!(first <= 3 && second <= 2, "{first} {second}");
        assert!(second >= 1, "asked again");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn switched_off_no_side_connection_is_ever_made() {
        let Some(test) = database(DB::DB).await else { return };
        let proxy = Proxy::start(&test.url);
        let bench = Bench::<DB>::at(&proxy.url(&test.url), loud().witness(false), 3).await;
        hold(&bench, 3).await;
        assert_eq!(proxy.accepted(), POOL);
        let finding = &of(&bench.findings, Kind::HeldTooLong)[0];
        assert!(finding.to_string().contains("was not seen"), "{finding}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_old_holders_are_not_reported_nobody_asks_about_them() {
        for detail in [Detail::Location, Detail::Off] {
            let Some(test) = database(DB::DB).await else { return };
            let proxy = Proxy::start(&test.url);
            let bench = Bench::<DB>::at(&proxy.url(&test.url), loud().detail(detail), 3).await;
            hold(&bench, 0).await;
            assert_eq!(proxy.accepted(), POOL, "{detail}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_holder_that_is_never_reported_is_never_asked_about() {
        let Some(test) = database(DB::DB).await else { return };
        let proxy = Proxy::start(&test.url);
        let mut bench = Bench::<DB>::at(&proxy.url(&test.url), loud(), 3).await;
        bench.pool = bench.pool.labeled("listener").unreported();
        hold(&bench, 0).await;
        assert_eq!(proxy.accepted(), POOL);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pool_that_was_finished_elsewhere_has_no_backends_to_ask_about() {
        let Some(test) = database(DB::DB).await else { return };
        let proxy = Proxy::start(&test.url);
        let raw = sqlx::pool::PoolOptions::<DB>::new().max_connections(3);
        let raw = raw.connect(&proxy.url(&test.url)).await.expect("a pool");
        let monitor = Monitor::new(loud());
        let findings = crate::support::Capture::new();
        let kept = findings.clone();
        monitor.add_sink(move |finding: &leaktrace::Finding| kept.push(finding.clone()));
        let bench = Bench { pool: monitor.watch("orders", raw), monitor, findings };
        hold(&bench, 3).await;
        assert_eq!(proxy.accepted(), POOL);
        assert!(of(&bench.findings, Kind::HeldTooLong)[0].to_string().contains("was not seen"));
    }
}

#[test]
fn the_variable_switches_it_off() {
    let config = |value: &'static str| {
        Config::from_lookup(move |name| (name == "DB_LEAK_WITNESS").then(|| value.to_string()))
            .expect("a value")
    };
    assert!(!config("off").get_witness());
    assert!(config("").get_witness(), "on when unset");
}
