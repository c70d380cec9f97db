//! What MariaDB says of its threads and transactions, asked from outside of any pool.

use sqlx::{Connection, MySqlConnection, Row};

use crate::support::db::TestDb;

/// One client of the test's database, as the server sees it.
#[derive(Clone, Debug)]
pub(crate) struct MySqlThread {
    pub(crate) id: i64,
    /// `Query`, `Execute`, `Sleep` and the like.
    pub(crate) command: String,
    /// The statement that runs now.
    pub(crate) statement: Option<String>,
    /// `RUNNING`, `LOCK WAIT`, when InnoDB has a transaction of it.
    pub(crate) transaction: Option<String>,
}

/// A connection of its own to the test's database.
#[derive(Debug)]
pub(crate) struct MySqlObserver(MySqlConnection);

impl MySqlObserver {
    pub(crate) async fn watch(test: &TestDb) -> Self {
        let conn = MySqlConnection::connect(&test.url).await;
        Self(conn.expect("the observer's connection"))
    }

    /// All clients of this database except ourselves.
    ///
    /// The server refreshes the transactions it shows only every 0.1 s, and shows one from its first
    /// statement on a table, not from BEGIN: wait for the state, never assert it at once.
    pub(crate) async fn threads(&mut self) -> Vec<MySqlThread> {
        // Casts, because the columns' types differ between versions.
        sqlx::query(
            "SELECT CAST(p.id AS SIGNED) AS id, CAST(p.command AS CHAR) AS command, \
                    CAST(p.info AS CHAR) AS statement, CAST(t.trx_state AS CHAR) AS transaction_state \
             FROM information_schema.processlist p \
             LEFT JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id \
             WHERE p.db = DATABASE() AND p.id <> CONNECTION_ID() \
             ORDER BY p.id",
        )
        .fetch_all(&mut self.0)
        .await
        .expect("the processlist")
        .iter()
        .map(|row| MySqlThread {
            id: row.get("id"),
            command: row.get("command"),
            statement: row.get("statement"),
            transaction: row.get("transaction_state"),
        })
        .collect()
    }

    pub(crate) async fn thread(&mut self, id: i64) -> Option<MySqlThread> {
        self.threads()
            .await
            .into_iter()
            .find(|thread| thread.id == id)
    }

    pub(crate) async fn open_transactions(&mut self) -> usize {
        let threads = self.threads().await;
        threads.iter().filter(|t| t.transaction.is_some()).count()
    }

    /// Ends the client's connection; whether there was one.
    pub(crate) async fn terminate(&mut self, id: i64) -> bool {
        let sql = format!("KILL CONNECTION {id}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut self.0)
            .await
            .is_ok()
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
