//! The server's truth, asked over a connection of its own, outside of any pool.
//!
//! Responsible for what can be said of all databases alike; each file below asks one database for
//! more. Uses sqlx alone, so it cannot share a mistake with the crate under test.

pub(crate) mod mysql;
pub(crate) mod postgres;
pub(crate) mod sqlite;

use super::db::{Db, TestDb};

pub(crate) use mysql::MySqlObserver;
pub(crate) use postgres::PgObserver;
pub(crate) use sqlite::SqliteObserver;

/// An observer of whatever database a test runs on.
#[derive(Debug)]
pub(crate) enum Observer {
    Postgres(PgObserver),
    MySql(MySqlObserver),
    Sqlite(SqliteObserver),
}

impl Observer {
    pub(crate) async fn watch(test: &TestDb) -> Self {
        match test.db {
            Db::Postgres => Self::Postgres(PgObserver::watch(test).await),
            Db::MySql => Self::MySql(MySqlObserver::watch(test).await),
            Db::Sqlite | Db::Any => Self::Sqlite(SqliteObserver::watch(test).await),
        }
    }

    /// How many transactions are open in the test's database, other than ours.
    ///
    /// MariaDB counts one from its first statement on a table, SQLite only the one that has written:
    /// write in the transaction that is to be seen.
    pub(crate) async fn open_transactions(&mut self) -> usize {
        match self {
            Self::Postgres(observer) => observer.open_transactions().await,
            Self::MySql(observer) => observer.open_transactions().await,
            Self::Sqlite(observer) => usize::from(observer.write_locked().await),
        }
    }

    /// How many connections to the test's database the server has, other than ours.
    /// `None` on SQLite, which does not know.
    pub(crate) async fn connections(&mut self) -> Option<usize> {
        match self {
            Self::Postgres(observer) => Some(observer.backends().await.len()),
            Self::MySql(observer) => Some(observer.threads().await.len()),
            Self::Sqlite(_) => None,
        }
    }

    /// How many rows of the table everyone can see, that is: the committed ones.
    pub(crate) async fn rows(&mut self, table: &'static str) -> i64 {
        match self {
            Self::Postgres(observer) => observer.rows(table).await,
            Self::MySql(observer) => observer.rows(table).await,
            Self::Sqlite(observer) => observer.rows(table).await,
        }
    }

    /// Runs plain SQL and commits it: tables for a test.
    pub(crate) async fn execute(&mut self, sql: &'static str) {
        match self {
            Self::Postgres(observer) => observer.execute(sql).await,
            Self::MySql(observer) => observer.execute(sql).await,
            Self::Sqlite(observer) => observer.execute(sql).await,
        }
    }
}
