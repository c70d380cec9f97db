//! What the server said of a holder is left out as soon as the holder is seen to do anything.

use sqlx::raw_sql;

use crate::bench::{Bench, Server, on_each_server};
use crate::support::database;

on_each_server! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_use_after_the_question_ends_the_testimony() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        let mut conn = bench.pool.acquire().await.expect("a connection");
        let raw: &mut Raw = &mut conn;
        raw_sql("SELECT 1").execute(raw).await.expect("an answer");
        bench.told().await;
        sqlx::query("SELECT 1").execute(&mut *conn).await.expect("an answer");
        let holders = bench.pool.holders();
        assert!(holders[0].server.is_none(), "{holders:?}");
        drop(conn);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_raw_loan_ends_it_too() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        let mut conn = bench.pool.acquire().await.expect("a connection");
        let raw: &mut Raw = &mut conn;
        raw_sql("SELECT 1").execute(raw).await.expect("an answer");
        bench.told().await;
        let again: &mut Raw = &mut conn;
        let holders = bench.pool.holders();
        assert!(holders[0].server.is_none(), "{holders:?}");
        raw_sql("SELECT 1").execute(again).await.expect("an answer");
        drop(conn);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_holder_that_does_nothing_it_stays_with_its_age() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        let mut conn = bench.pool.acquire().await.expect("a connection");
        let raw: &mut Raw = &mut conn;
        raw_sql("SELECT 1").execute(raw).await.expect("an answer");
        let told = bench.told().await.server.expect("a testimony");
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        let later = bench.told().await.server.expect("a testimony");
        assert_eq!(later.state, told.state);
        let report = bench.monitor.report().to_string();
        assert!(report.contains("(server"), "{report}");
        if later.asked_ago > std::time::Duration::from_secs(2) {
            assert!(report.contains(" ago: idle"), "{report}");
        }
        drop(conn);
    }
}
