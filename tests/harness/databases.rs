//! Each test gets a database of its own, and it is gone afterwards.

use sqlx::{Connection, MySqlConnection, PgConnection, Row, SqliteConnection};

use crate::support::db::{mysql_database, postgres_database, sqlite_database, sqlite_memory};
use crate::support::{Db, Observer, database};

#[tokio::test]
async fn postgres_databases_are_fresh_and_dropped_though_somebody_is_connected() {
    let (Some(one), Some(two)) = (postgres_database().await, postgres_database().await) else {
        return;
    };
    assert_ne!(one.name(), two.name());
    let server = Db::Postgres.server_url().expect("a server");
    let names = [one.name().to_owned(), two.name().to_owned()];
    let mut left = PgConnection::connect(&one.url).await.expect("a connection");
    sqlx::raw_sql("BEGIN; CREATE TABLE t (id int)")
        .execute(&mut left)
        .await
        .expect("an open transaction");
    drop((one, two));
    let mut conn = PgConnection::connect(&server).await.expect("the server");
    let found = sqlx::query("SELECT datname::text FROM pg_database WHERE datname::text = ANY($1)")
        .bind(names)
        .fetch_all(&mut conn)
        .await
        .expect("the databases");
    assert!(found.is_empty(), "{} left", found.len());
}

#[tokio::test]
async fn mariadb_databases_are_fresh_and_dropped_though_a_transaction_is_open() {
    let (Some(one), Some(two)) = (mysql_database().await, mysql_database().await) else {
        return;
    };
    assert_ne!(one.name(), two.name());
    let server = Db::MySql.server_url().expect("a server");
    let names = [one.name().to_owned(), two.name().to_owned()];
    let mut left = MySqlConnection::connect(&one.url)
        .await
        .expect("a connection");
    sqlx::raw_sql("CREATE TABLE t (id int); BEGIN; INSERT INTO t VALUES (1)")
        .execute(&mut left)
        .await
        .expect("an open transaction");
    drop((one, two));
    let mut conn = MySqlConnection::connect(&server).await.expect("the server");
    let found = sqlx::query(
        "SELECT schema_name FROM information_schema.schemata WHERE schema_name IN (?, ?)",
    )
    .bind(&names[0])
    .bind(&names[1])
    .fetch_all(&mut conn)
    .await
    .expect("the databases");
    assert!(found.is_empty(), "{} left", found.len());
}

#[tokio::test]
async fn a_sqlite_file_is_in_wal_mode_and_removed() {
    let test = sqlite_database().await;
    let path = test.url.trim_start_matches("sqlite://").to_owned();
    let mut conn = SqliteConnection::connect(&test.url)
        .await
        .expect("the file");
    let row = sqlx::query("PRAGMA journal_mode").fetch_one(&mut conn);
    assert_eq!(row.await.expect("a mode").get::<String, _>(0), "wal");
    assert!(std::path::Path::new(&path).exists());
    drop((conn, test));
    assert!(!std::path::Path::new(&path).exists());
}

#[tokio::test]
async fn connections_of_one_pool_share_a_sqlite_database_in_memory() {
    let test = sqlite_memory();
    let pool = sqlx::SqlitePool::connect(&test.url).await.expect("a pool");
    let mut one = pool.acquire().await.expect("a connection");
    let mut two = pool.acquire().await.expect("a second one");
    sqlx::raw_sql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
        .execute(&mut *one)
        .await
        .expect("a table");
    let row = sqlx::query("SELECT count(*) FROM t").fetch_one(&mut *two);
    assert_eq!(row.await.expect("a count").get::<i64, _>(0), 1);
}

#[tokio::test]
async fn any_connects_to_each_database() {
    for db in Db::ALL {
        let Some(test) = database(db).await else {
            continue;
        };
        let mut conn = sqlx::AnyConnection::connect(test.as_any())
            .await
            .unwrap_or_else(|error| panic!("{db}: {error}"));
        conn.ping().await.expect("a ping");
        conn.close().await.expect("a close");
        assert_eq!(Observer::watch(&test).await.open_transactions().await, 0);
    }
}
