//! Direct calls of an executor (`conn.execute("…")`) are seen with their line.
//!
//! The innocent twin is in `matrix`: called through a query, the caller is sqlx, and no line of
//! sqlx is ever shown.

use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, Database, Execute, Executor, SqlSafeStr};

use crate::ground::*;

fn sql(text: &'static str) -> sqlx::SqlStr {
    AssertSqlSafe(text).into_sql_str()
}

on_each_database! {
    #[tokio::test]
    async fn each_method_of_a_guard_tells_the_line_of_its_call() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let mut conn = w.pool.acquire().await.expect("a connection");
        let mut uses = 0;
        macro_rules! seen_at {
            ($line:expr) => {{
                uses += 1;
                w.sees(seen("idle", Some($line), Some(QUICK_SHOWN), uses)).await
            }};
        }
        conn.execute(QUICK).await.expect("execute");
        seen_at!(line!() - 1);
        conn.fetch_all(QUICK).await.expect("fetch_all");
        seen_at!(line!() - 1);
        conn.fetch_one(QUICK).await.expect("fetch_one");
        seen_at!(line!() - 1);
        conn.fetch_optional(QUICK).await.expect("fetch_optional");
        seen_at!(line!() - 1);
        conn.fetch(QUICK).try_next().await.expect("fetch");
        seen_at!(line!() - 1);
        conn.fetch_many(QUICK).try_for_each(async |_| Ok(())).await.expect("fetch_many");
        seen_at!(line!() - 1);
        conn.execute_many(QUICK).try_for_each(async |_| Ok(())).await.expect("execute_many");
        seen_at!(line!() - 1);
        conn.prepare(sql(QUICK)).await.expect("prepare");
        seen_at!(line!() - 1);
        drop(conn);
        w.all_back().await;

        let mut tx = w.pool.begin().await.expect("a transaction");
        tx.execute(QUICK).await.expect("execute");
        w.sees(seen("idle", Some(line!() - 1), Some(QUICK_SHOWN), 1)).await;
    }

    #[tokio::test]
    async fn a_direct_call_on_the_pool_tells_its_line() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let line = line!() + 1;
        let mut rows = w.pool.fetch(QUICK);
        assert!(rows.try_next().await.expect("a row").is_some());
        let holder = w.pool.holders().pop().expect("the stream is a holder");
        let place = holder.acquired_by.expect("a line");
        assert_eq!((place.file().as_str(), place.line()), ("tests/detection/direct_calls.rs", line));
        drop(rows);
        let count = w.pool.fetch_all(QUICK).await.expect("rows").len();
        assert_eq!(count, 1);
        w.all_back().await;
        assert!(w.pool.fetch_optional("SELECT 1 WHERE 1 = 0").await.expect("no row").is_none());
        let missing = w.pool.fetch_one("SELECT 1 WHERE 1 = 0").await;
        assert!(matches!(missing, Err(sqlx::Error::RowNotFound)), "{missing:?}");
    }

    #[tokio::test]
    async fn the_results_are_those_of_sqlx() {
        let Some(w) = watched::<DB>(silent(), 2).await else { return };
        let raw = w.pool.as_sqlx();
        let script = "CREATE TABLE t (id INTEGER); INSERT INTO t VALUES (1), (2); SELECT id FROM t; DROP TABLE t";
        let mut ours = w.pool.acquire().await.expect("a connection");
        let mut theirs = raw.acquire().await.expect("a connection");
        let shape = |step: sqlx::Either<<DB as Database>::QueryResult, <DB as Database>::Row>| step.is_left();
        let expected: Vec<bool> =
            theirs.fetch_many(sqlx::raw_sql(script)).map_ok(shape).try_collect().await.expect("steps");
        let got: Vec<bool> =
            ours.fetch_many(sqlx::raw_sql(script)).map_ok(shape).try_collect().await.expect("steps");
        assert_eq!(got, expected);
        let expected = theirs.execute(sqlx::raw_sql(script)).await.expect("a script").rows_affected();
        let got = ours.execute(sqlx::raw_sql(script)).await.expect("a script").rows_affected();
        assert_eq!(got, expected);
        let expected = theirs.execute_many(sqlx::raw_sql(script)).try_fold(0, async |n, _| Ok(n + 1)).await;
        let got = ours.execute_many(sqlx::raw_sql(script)).try_fold(0, async |n, _| Ok(n + 1)).await;
        assert_eq!(got.expect("results"), expected.expect("results"));
    }
}

/// A query that is the user's own type takes the same way.
#[tokio::test]
async fn generic_code_shows_the_line_of_the_users_own_function() {
    let w = sqlite(silent(), 1).await;
    let mut conn = w.pool.acquire().await.expect("a connection");
    async fn run<'c, E: Executor<'c, Database = sqlx::Sqlite>>(on: E) -> u32 {
        on.execute(QUICK).await.expect("a statement");
        line!() - 1
    }
    let line = run(&mut conn).await;
    w.sees(seen("idle", Some(line), Some(QUICK_SHOWN), 1)).await;
    let _ = Execute::<sqlx::Sqlite>::sql(QUICK);
}
