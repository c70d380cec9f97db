//! Responsible for giving each test a database of its own: a schema on PostgreSQL, a database on
//! MariaDB, a file for SQLite. Knows sqlx only: which pool type stands on it is said in `db.rs`.

use std::path::PathBuf;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

/// The tables that every test starts with, on each database.
const TABLES: [&str; 2] = [
    include_str!("migrations/0001_notes.sql"),
    include_str!("migrations/0002_tags.sql"),
];

/// A fresh PostgreSQL schema, with the tables; `None` says that there is no server to test with.
pub(crate) async fn postgres(test: &str) -> Option<PgConnectOptions> {
    let options = empty_postgres(test).await?;
    let mut conn = options.connect().await.expect("the server answers");
    for table in TABLES {
        conn.execute(table).await.expect("the table is made");
    }
    conn.close().await.expect("the connection closes");
    Some(options)
}

/// A fresh PostgreSQL schema without any table.
pub(crate) async fn empty_postgres(test: &str) -> Option<PgConnectOptions> {
    let url = postgres_url()?;
    let options: PgConnectOptions = url.parse().expect("the URL is one of PostgreSQL");
    let schema = format!("{}_{test}", env!("CARGO_CRATE_NAME"));
    let mut conn = options.connect().await.expect("the server answers");
    for statement in [
        format!("DROP SCHEMA IF EXISTS {schema} CASCADE"),
        format!("CREATE SCHEMA {schema}"),
    ] {
        let fresh = conn.execute(AssertSqlSafe(statement)).await;
        fresh.expect("the schema is made");
    }
    conn.close().await.expect("the connection closes");
    Some(options.options([("search_path", schema)]))
}

/// A fresh MariaDB database, with the table; `None` says that there is no server to test with.
pub(crate) async fn mariadb(test: &str) -> Option<MySqlConnectOptions> {
    let url = mariadb_url()?;
    let options: MySqlConnectOptions = url.parse().expect("the URL is one of MariaDB");
    let database = format!("{}_{test}", env!("CARGO_CRATE_NAME"));
    let mut conn = options.connect().await.expect("the server answers");
    for statement in [
        format!("DROP DATABASE IF EXISTS {database}"),
        format!("CREATE DATABASE {database}"),
        format!(
            "CREATE TABLE {database}.notes \
             (id BIGINT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(200) NOT NULL, stars INT)"
        ),
    ] {
        let fresh = conn.execute(AssertSqlSafe(statement)).await;
        fresh.expect("the database is made");
    }
    conn.close().await.expect("the connection closes");
    Some(options.database(&database))
}

/// A fresh SQLite file, with the table. It needs no server.
pub(crate) async fn sqlite(test: &str) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(sqlite_file(test))
        .create_if_missing(true);
    let mut conn = options.connect().await.expect("the file opens");
    let table = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL, stars INT)";
    conn.execute(table).await.expect("the table is made");
    conn.close().await.expect("the file closes");
    options
}

/// Where a test's SQLite database lies; what an earlier run left there is removed.
pub(crate) fn sqlite_file(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME"));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    for suffix in ["", "-wal", "-shm", "-journal"] {
        // Absent is what we want: an error here says no more than that.
        let _ = std::fs::remove_file(folder.join(format!("{test}.db{suffix}")));
    }
    folder.join(format!("{test}.db"))
}

/// The PostgreSQL server to test with.
pub(crate) fn postgres_url() -> Option<String> {
    url("LEAKTRACE_TEST_POSTGRES_URL", "PostgreSQL")
}

/// The MariaDB server to test with.
pub(crate) fn mariadb_url() -> Option<String> {
    url("LEAKTRACE_TEST_MYSQL_URL", "MariaDB")
}

/// The server to test with, or a word on standard error that this test did not run.
fn url(variable: &str, database: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        eprintln!("skipped: {variable} is not set, so nothing ran on {database}");
    }
    url
}
