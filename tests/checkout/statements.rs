//! A statement on the pool is a holder as long as its stream lives.

use futures::{StreamExt, TryStreamExt};
use leaktrace::{Activity, HolderKind, Kind};

use crate::ground::*;

const ROWS: &str = "SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3";

on_each_database! {
    #[tokio::test]
    async fn a_stream_is_a_holder_until_it_is_dropped() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let mut rows = sqlx::query(ROWS).fetch(&w.pool);
        assert!(w.pool.holders().is_empty(), "nothing happens before the first poll");
        rows.next().await.expect("a row").expect("no error");
        let holder = w.pool.holders().pop().expect("a holder");
        assert_eq!(holder.kind, HolderKind::Statement);
        assert_eq!(holder.acquired_by, None);
        assert_eq!(holder.last_sql.as_deref(), Some("SELECT ? AS n UNION ALL SELECT ? UNION ALL SELECT ?"));
        assert!(matches!(holder.activity, Activity::InFlight { .. }));
        drop(rows);
        w.all_back().await;
        assert!(w.pool.holders().is_empty());
    }

    #[tokio::test]
    async fn a_stream_that_is_read_to_its_end_is_none_any_more() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let mut rows = sqlx::query(ROWS).fetch(&w.pool);
        let mut count = 0;
        while rows.try_next().await.expect("no error").is_some() {
            count += 1;
        }
        assert_eq!(count, 3);
        // The stream is still here; what it held is not.
        w.all_back().await;
        drop(rows);
        assert!(w.pool.holders().is_empty());
    }

    #[tokio::test]
    async fn a_stream_whose_reader_is_slow_is_told_so() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let mut rows = sqlx::query(ROWS).fetch(&w.pool);
        rows.next().await.expect("a row").expect("no error");
        aged(&w.pool, millis(20)).await;
        w.monitor.set_threshold(millis(10));
        let found = w.finding(Kind::HeldTooLong).await;
        let remedy = found.remedy.clone().expect("a remedy");
        assert!(remedy.contains("its rows are not being read"), "{remedy}");
        assert!(found.headline.contains("rows not read"), "{}", found.headline);
        drop(rows);
        w.finding(Kind::ReturnedLate).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_statement_is_not_a_slow_reader() {
        let Some(w) = watched::<DB>(silent().threshold(millis(100)), 2).await else { return };
        sqlx::query(DB::SLOW).execute(&w.pool).await.expect("a slow statement");
        let found = w.finding(Kind::HeldTooLong).await;
        let remedy = found.remedy.clone().expect("a remedy");
        assert!(remedy.contains("the statement is slow"), "{remedy}");
    }
}
