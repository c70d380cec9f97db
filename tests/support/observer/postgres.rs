//! What PostgreSQL says of its backends: `pg_stat_activity`, asked from outside of any pool.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection, Row};

use crate::support::db::TestDb;

/// One client of the test's database, as the server sees it.
#[derive(Clone, Debug)]
pub(crate) struct PgBackend {
    pub(crate) pid: i32,
    pub(crate) application_name: String,
    /// `active`, `idle`, `idle in transaction`, `idle in transaction (aborted)`.
    pub(crate) state: String,
    /// The statement that runs now, else the last one.
    pub(crate) query: String,
    /// How long its transaction is open; a single statement that runs has one too.
    pub(crate) transaction: Option<Duration>,
}

impl PgBackend {
    pub(crate) fn is_idle_in_transaction(&self) -> bool {
        self.state.starts_with("idle in transaction")
    }
}

/// A connection of its own to the test's database.
#[derive(Debug)]
pub(crate) struct PgObserver(PgConnection);

impl PgObserver {
    pub(crate) async fn watch(test: &TestDb) -> Self {
        let options: PgConnectOptions = test.url.parse().expect("the URL of a test database");
        let conn = options
            .application_name("leaktrace observer")
            .connect()
            .await
            .expect("the observer's connection");
        Self(conn)
    }

    /// All clients of this database except ourselves.
    pub(crate) async fn backends(&mut self) -> Vec<PgBackend> {
        sqlx::query(
            "SELECT pid, coalesce(application_name, '') AS application_name, \
                    coalesce(state, '') AS state, coalesce(query, '') AS query, \
                    extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age \
             FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid() \
               AND backend_type = 'client backend' \
             ORDER BY backend_start, pid",
        )
        .fetch_all(&mut self.0)
        .await
        .expect("pg_stat_activity")
        .iter()
        .map(|row| PgBackend {
            pid: row.get("pid"),
            application_name: row.get("application_name"),
            state: row.get("state"),
            query: row.get("query"),
            transaction: row
                .get::<Option<f64>, _>("age")
                .map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
        })
        .collect()
    }

    /// The clients with this application name.
    pub(crate) async fn backends_of(&mut self, application_name: &str) -> Vec<PgBackend> {
        let mut backends = self.backends().await;
        backends.retain(|backend| backend.application_name == application_name);
        backends
    }

    pub(crate) async fn backend(&mut self, pid: i32) -> Option<PgBackend> {
        self.backends()
            .await
            .into_iter()
            .find(|backend| backend.pid == pid)
    }

    pub(crate) async fn open_transactions(&mut self) -> usize {
        let backends = self.backends().await;
        backends.iter().filter(|b| b.transaction.is_some()).count()
    }

    /// Ends the backend; whether there was one.
    pub(crate) async fn terminate(&mut self, pid: i32) -> bool {
        self.signal("SELECT pg_terminate_backend($1)", pid).await
    }

    /// Cancels what the backend runs; whether there was one.
    pub(crate) async fn cancel(&mut self, pid: i32) -> bool {
        self.signal("SELECT pg_cancel_backend($1)", pid).await
    }

    async fn signal(&mut self, sql: &'static str, pid: i32) -> bool {
        sqlx::query_scalar(sql)
            .bind(pid)
            .fetch_one(&mut self.0)
            .await
            .expect("the right to signal a backend")
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
