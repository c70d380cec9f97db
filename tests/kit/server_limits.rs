//! The server's own safety net: limits that hold while this process hangs.

use std::time::Duration;

use leaktrace::{AnyPool, MySqlPool, PgPool, SqlitePool};
use sqlx::Row;

use crate::settle::{current_setting, open, read};
use crate::support::db::{mysql_database, postgres_database, sqlite_database};
use crate::support::doors::through_pgbouncer;
use crate::support::eventually;

const LIMITS: [(&str, &str); 3] = [
    ("DB_STATEMENT_TIMEOUT_SECS", "1500ms"),
    ("DB_IDLE_IN_TRANSACTION_TIMEOUT_SECS", "2"),
    ("DB_LOCK_TIMEOUT_SECS", "1"),
];

fn with_limits(url: &str) -> leaktrace::kit::PoolSettings {
    let mut list = vec![("DATABASE_URL", url)];
    list.extend(LIMITS);
    read(&list).expect("settings")
}

#[tokio::test]
async fn postgres_ends_a_statement_a_wait_and_an_idle_transaction() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let pool: PgPool = open(&with_limits(&test.url)).await.expect("a pool");
    sqlx::raw_sql("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)")
        .execute(&pool)
        .await
        .expect("a table");
    let mut conn = pool.acquire().await.expect("a connection");
    for (name, value) in [
        ("statement_timeout", "1500ms"),
        ("idle_in_transaction_session_timeout", "2s"),
        ("lock_timeout", "1s"),
    ] {
        assert_eq!(current_setting(&mut conn, name).await, value);
    }
    let ended = sqlx::query("SELECT pg_sleep(60)").execute(&mut *conn).await;
    let code = |error: sqlx::Error| {
        error
            .into_database_error()
            .and_then(|e| e.code().map(String::from))
    };
    assert_eq!(code(ended.expect_err("60 s")).as_deref(), Some("57014"));

    let mut tx = pool.begin().await.expect("a transaction");
    sqlx::query("UPDATE orders SET id = 2")
        .execute(&mut *tx)
        .await
        .expect("a lock");
    let waited = sqlx::query("UPDATE orders SET id = 3")
        .execute(&mut *conn)
        .await;
    assert_eq!(code(waited.expect_err("a lock")).as_deref(), Some("55P03"));

    eventually(
        "the server ends the idle transaction",
        Duration::from_secs(30),
        async || {
            sqlx::query("UPDATE orders SET id = 4")
                .execute(&mut *conn)
                .await
                .map(drop)
        },
    )
    .await;
    tx.commit().await.expect_err("the server has closed it");
}

#[tokio::test]
async fn postgres_has_no_limit_that_nobody_set() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let settings = read(&[("DATABASE_URL", &test.url)]).expect("settings");
    let pool: PgPool = open(&settings).await.expect("a pool");
    let mut conn = pool.acquire().await.expect("a connection");
    for name in [
        "statement_timeout",
        "idle_in_transaction_session_timeout",
        "lock_timeout",
    ] {
        assert_eq!(current_setting(&mut conn, name).await, "0");
    }
}

#[tokio::test]
async fn mariadb_ends_a_statement_and_an_idle_transaction() {
    let Some(test) = mysql_database().await else {
        return;
    };
    let pool: MySqlPool = open(&with_limits(&test.url)).await.expect("a pool");
    let mut conn = pool.acquire().await.expect("a connection");
    let row = sqlx::query(
        "SELECT CAST(@@max_statement_time AS CHAR) AS statement, \
         CAST(@@idle_transaction_timeout AS CHAR) AS idle, CAST(@@innodb_lock_wait_timeout AS CHAR) AS wait",
    )
    .fetch_one(&mut *conn)
    .await
    .expect("its settings");
    let seen: [String; 3] = ["statement", "idle", "wait"].map(|name| row.get(name));
    assert_eq!(seen, ["1.500000", "2", "1"]);
    let ended = sqlx::query("SELECT SLEEP(60)").execute(&mut *conn).await;
    let error = ended.expect_err("60 s").to_string();
    assert!(error.contains("max_statement_time"), "{error}");
}

#[tokio::test]
async fn any_pool_has_the_limits_of_the_database_it_stands_in_front_of() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let settings = with_limits(test.as_any());
    let pool: AnyPool = open(&settings).await.expect("a pool");
    let row = sqlx::query("SELECT current_setting('statement_timeout')")
        .fetch_one(&pool)
        .await
        .expect("a row");
    assert_eq!(row.get::<String, _>(0), "1500ms");
}

#[tokio::test]
async fn sqlite_waits_for_a_lock_as_long_as_it_is_told() {
    let test = sqlite_database().await;
    let pool: SqlitePool = open(&with_limits(&test.url)).await.expect("a pool");
    let row = sqlx::query("PRAGMA busy_timeout")
        .fetch_one(&pool)
        .await
        .expect("a row");
    assert_eq!(row.get::<i64, _>(0), 1_000);
}

#[tokio::test]
async fn a_pooler_that_refuses_limits_is_named_and_one_without_them_is_not() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let Some(url) = through_pgbouncer(&test) else {
        return;
    };
    let error = open::<sqlx::Postgres>(&with_limits(&url))
        .await
        .expect_err("options");
    let text = error.to_string();
    assert!(
        text.contains("pooler") && text.contains("ALTER ROLE"),
        "{text}"
    );
    let settings = read(&[("DATABASE_URL", &url), ("DB_PREPARED_STATEMENTS", "false")]);
    let pool: PgPool = open(&settings.expect("settings")).await.expect("a pool");
    let one: i32 = sqlx::query_scalar("SELECT $1")
        .bind(1_i32)
        .fetch_one(&pool)
        .await
        .expect("one");
    assert_eq!(one, 1);
}
