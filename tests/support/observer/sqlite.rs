//! What a second SQLite connection can learn: which rows are committed, and whether a writer is open.

use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};

use crate::support::db::TestDb;

/// A connection of its own to the test's file. It never waits for a lock.
#[derive(Debug)]
pub(crate) struct SqliteObserver(SqliteConnection);

impl SqliteObserver {
    /// # Panics
    /// For an in-memory database: a second connection would get another one and see nothing.
    pub(crate) async fn watch(test: &TestDb) -> Self {
        assert!(
            !test.url.contains(":memory:"),
            "an in-memory database cannot be observed"
        );
        let options: SqliteConnectOptions = test.url.parse().expect("the URL of a test database");
        let conn = options.busy_timeout(Duration::ZERO).connect().await;
        Self(conn.expect("the observer's connection"))
    }

    /// Whether somebody holds the write lock: a transaction that wrote, or began with IMMEDIATE.
    ///
    /// Takes the lock itself for an instant, so a writer without a busy timeout may be refused.
    pub(crate) async fn write_locked(&mut self) -> bool {
        match sqlx::raw_sql("BEGIN IMMEDIATE; ROLLBACK")
            .execute(&mut self.0)
            .await
        {
            Ok(_) => false,
            // 5 is SQLITE_BUSY; its extended codes carry it in the low byte.
            Err(sqlx::Error::Database(error))
                if error
                    .code()
                    .and_then(|code| code.parse::<i32>().ok())
                    .is_some_and(|code| code & 0xff == 5) =>
            {
                true
            }
            Err(error) => panic!("asking for the write lock: {error}"),
        }
    }

    pub(crate) async fn rows(&mut self, table: &'static str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut self.0)
            .await
            .expect("a table to count")
    }

    pub(crate) async fn execute(&mut self, sql: &'static str) {
        let done = sqlx::raw_sql(sql).execute(&mut self.0).await;
        done.expect("the observer's statement");
    }
}
