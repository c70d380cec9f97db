//! Responsible for what every test starts with: a database of its own (from `support`) that holds
//! the tables `notes` and `tags`. Knows sqlx only: which pool stands on it is said in `db.rs`.

use std::str::FromStr;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};

use crate::support::{Db, TestDb, database, db};

const POSTGRES: &str = concat!(
    include_str!("migrations/0001_notes.sql"),
    include_str!("migrations/0002_tags.sql")
);
const MARIADB: &str = "CREATE TABLE notes \
    (id BIGINT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(200) NOT NULL, stars INT)";
const SQLITE: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL, stars INT)";

/// A PostgreSQL database with the tables; `None` says that there is no server to test with.
pub(crate) async fn postgres() -> Option<(TestDb, PgConnectOptions)> {
    let db = database(Db::Postgres).await?;
    let options = with_tables(&db, POSTGRES).await;
    Some((db, options))
}

/// A PostgreSQL database without any table.
pub(crate) async fn empty_postgres() -> Option<(TestDb, PgConnectOptions)> {
    let db = database(Db::Postgres).await?;
    let options = db.url.parse().expect("the URL is well formed");
    Some((db, options))
}

/// A MariaDB database with the table `notes`; `None` says that there is no server to test with.
pub(crate) async fn mariadb() -> Option<(TestDb, MySqlConnectOptions)> {
    let db = database(Db::MySql).await?;
    let options = with_tables(&db, MARIADB).await;
    Some((db, options))
}

/// A SQLite file with the table `notes`.
pub(crate) async fn sqlite() -> (TestDb, SqliteConnectOptions) {
    let db = db::sqlite_database().await;
    let options = with_tables(&db, SQLITE).await;
    (db, options)
}

async fn with_tables<O>(db: &TestDb, script: &'static str) -> O
where
    O: ConnectOptions + FromStr<Err = sqlx::Error>,
    O::Connection: Connection<Options = O> + Sized,
    for<'c> &'c mut O::Connection: Executor<'c, Database = <O::Connection as Connection>::Database>,
{
    let options: O = db.url.parse().expect("the URL is well formed");
    let mut conn = options.connect().await.expect("the database answers");
    conn.execute(script).await.expect("the tables are made");
    conn.close().await.expect("the connection closes");
    options
}
