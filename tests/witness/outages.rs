//! A server that refuses the side connection, or is silent: the finding comes all the same, in time,
//! and nothing is an error.

use std::time::Duration;

use leaktrace::{Activity, Kind};
use sqlx::raw_sql;

use crate::bench::{Bench, Server, THRESHOLD, loud, oldest, on_each_server, says};
use crate::support::{Proxy, database};

/// A busy machine is that late by itself.
const BUSY: Duration = Duration::from_secs(2);

on_each_server! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_takes_no_more_connections_makes_nothing_late() {
        let Some(test) = database(DB::DB).await else { return };
        let proxy = Proxy::start(&test.url);
        let bench = Bench::<DB>::at(&proxy.url(&test.url), loud(), 2).await;
        let mut conn = bench.pool.acquire().await.expect("a connection");
        let raw: &mut Raw = &mut conn;
        raw_sql("SELECT 1").execute(&mut *raw).await.expect("an answer");
        proxy.refuse();
        let finding = bench.finding().await;
        assert_eq!(finding.kind, Kind::HeldTooLong, "{finding}");
        assert!(matches!(oldest(&finding).activity, Activity::Unknown { .. }), "{finding}");
        assert!(oldest(&finding).held_for < THRESHOLD + BUSY, "{finding}");
        says(&finding, &["was not seen", "ask the server about "]);
        // The pool is as it was.
        raw_sql("SELECT 1").execute(raw).await.expect("an answer");
        drop(conn);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_silent_server_makes_nothing_late() {
        let Some(test) = database(DB::DB).await else { return };
        let proxy = Proxy::start(&test.url);
        let bench = Bench::<DB>::at(&proxy.url(&test.url), loud(), 2).await;
        let mut conn = bench.pool.acquire().await.expect("a connection");
        let raw: &mut Raw = &mut conn;
        raw_sql("SELECT 1").execute(&mut *raw).await.expect("an answer");
        proxy.stall();
        let finding = bench.finding().await;
        assert!(oldest(&finding).held_for < THRESHOLD + BUSY, "{finding}");
        assert!(oldest(&finding).server.is_none(), "{finding}");
        proxy.resume();
        raw_sql("SELECT 1").execute(raw).await.expect("an answer");
        drop(conn);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_answers_has_its_word_in_the_same_time() {
        let Some(test) = database(DB::DB).await else { return };
        let proxy = Proxy::start(&test.url);
        let bench = Bench::<DB>::at(&proxy.url(&test.url), loud(), 2).await;
        let mut conn = bench.pool.acquire().await.expect("a connection");
        let raw: &mut Raw = &mut conn;
        raw_sql("SELECT 1").execute(&mut *raw).await.expect("an answer");
        let finding = bench.finding().await;
        assert!(oldest(&finding).held_for < THRESHOLD + BUSY, "{finding}");
        says(&finding, &["(server: idle, pid "]);
        drop(conn);
    }
}
