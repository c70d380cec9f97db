//! Behind a PgBouncer in transaction mode every client hears its own answers.

use futures::TryStreamExt;
use leaktrace::{Config, Monitor, PgPool, PgPoolOptions};
use sqlx::{Connection, Executor, PgConnection};

use crate::support::TestDb;
use crate::support::db::postgres_database;
use crate::support::doors::through_pgbouncer;

const CLIENTS: u32 = 4;

/// A database, and the way to it through a pooler.
async fn pooler() -> Option<(TestDb, String)> {
    let test = postgres_database().await?;
    let url = through_pgbouncer(&test)?;
    Some((test, url))
}

fn options(monitor: &Monitor) -> PgPoolOptions {
    PgPoolOptions::new()
        .monitor(monitor)
        .max_connections(CLIENTS)
        .prepared_statements(false)
}

fn number_plus(number: i64) -> &'static str {
    match number {
        0 => "SELECT 0 + $1",
        1 => "SELECT 1 + $1",
        2 => "SELECT 2 + $1",
        _ => "SELECT 3 + $1",
    }
}

/// The most names on any server of the pooler.
async fn names(url: &str) -> i64 {
    let mut most = 0;
    let mut clients = Vec::new();
    // Each keeps its server, so that the next one gets another.
    for _ in 0..CLIENTS {
        let mut client = PgConnection::connect(url).await.expect("a connection");
        client.execute("BEGIN").await.expect("a server of its own");
        let row = client
            .fetch_one("SELECT count(*) FROM pg_prepared_statements")
            .await
            .expect("a count");
        most = most.max(sqlx::Row::get(&row, 0));
        clients.push(client);
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_hear_their_own_answers_and_leave_no_name_behind() {
    let Some((_test, url)) = pooler().await else {
        return;
    };
    let monitor = Monitor::new(Config::default());
    let pool = options(&monitor).connect(&url).await.expect("a pool");
    let client = |number: i64| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let sql = number_plus(number);
            for _ in 0..50 {
                let query = sqlx::query_scalar::<_, i64>(sql).bind(0_i64);
                assert_eq!(query.fetch_one(&pool).await?, number);
                let mut conn = pool.acquire().await?;
                let query = sqlx::query_scalar::<_, i64>(sql).bind(0_i64);
                assert_eq!(query.fetch_all(&mut *conn).await?, [number]);
                let mut tx = conn.begin().await?;
                let query = sqlx::query_scalar::<_, i64>(sql).bind(0_i64);
                assert_eq!(query.fetch_one(&mut *tx).await?, number);
                tx.commit().await?;
            }
            Ok::<_, sqlx::Error>(())
        })
    };
    for client in [client(0), client(1), client(2), client(3)] {
        client.await.expect("no panic").expect("no error");
    }
    assert_eq!(names(&url).await, 0);
    leaktrace::assert_no_leaks!(pool);
}

#[tokio::test]
async fn a_statement_of_its_own_is_saved_and_a_failed_one_is_not() {
    let Some((_test, url)) = pooler().await else {
        return;
    };
    let monitor = Monitor::new(Config::default());
    let pool = options(&monitor).connect(&url).await.expect("a pool");
    sqlx::raw_sql("CREATE TABLE orders (id bigint PRIMARY KEY)")
        .execute(&pool)
        .await
        .expect("a table");
    let insert = |id: i64| sqlx::query("INSERT INTO orders VALUES ($1)").bind(id);
    insert(1).execute(&pool).await.expect("one row");
    let mut conn = pool.acquire().await.expect("a connection");
    insert(2).execute(&mut *conn).await.expect("another");
    insert(2)
        .execute(&mut *conn)
        .await
        .expect_err("a duplicate");
    insert(3).execute(&mut *conn).await.expect("one after it");
    drop(conn);
    insert(3).execute(&pool).await.expect_err("a duplicate");
    let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM orders WHERE id > $1 ORDER BY id")
        .bind(0_i64)
        .fetch_all(&pool)
        .await
        .expect("rows");
    assert_eq!(ids, [1, 2, 3]);
}

#[tokio::test]
async fn a_transaction_begun_by_text_stays_one() {
    let Some((_test, url)) = pooler().await else {
        return;
    };
    let monitor = Monitor::new(Config::default());
    let pool = options(&monitor).connect(&url).await.expect("a pool");
    pool.execute("CREATE TABLE orders (id bigint PRIMARY KEY)")
        .await
        .expect("a table");
    let mut conn = pool.acquire().await.expect("a connection");
    conn.execute("BEGIN").await.expect("a transaction by text");
    sqlx::query("INSERT INTO orders VALUES ($1)")
        .bind(1_i64)
        .execute(&mut *conn)
        .await
        .expect("a row");
    conn.execute("ROLLBACK").await.expect("its end");
    assert_eq!(rows(&pool).await, 0, "the statement committed it");
}

async fn rows(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM orders")
        .fetch_one(pool)
        .await
        .expect("a count")
}

#[tokio::test]
async fn a_stream_dropped_half_way_leaves_a_clean_connection() {
    let Some((_test, url)) = pooler().await else {
        return;
    };
    let monitor = Monitor::new(Config::default());
    let pool = options(&monitor)
        .max_connections(1)
        .connect(&url)
        .await
        .expect("a pool");
    let mut conn = pool.acquire().await.expect("a connection");
    for round in 0..3 {
        let mut rows = sqlx::query_scalar::<_, i32>("SELECT generate_series(1, $1)")
            .bind(1_000_i32)
            .fetch(&mut *conn);
        assert_eq!(rows.try_next().await.expect("a row"), Some(1), "{round}");
        drop(rows);
        let asked = conn
            .fetch_one("SELECT now() = statement_timestamp()")
            .await
            .expect("an answer");
        assert!(
            sqlx::Row::get::<bool, _>(&asked, 0),
            "still in a transaction"
        );
    }
    drop(conn);
    let again: i64 = sqlx::query_scalar("SELECT 1 + $1")
        .bind(0_i64)
        .fetch_one(&pool)
        .await
        .expect("the next borrower");
    assert_eq!(again, 1);
}

#[tokio::test]
async fn what_would_leave_a_name_is_refused_and_only_there() {
    let Some((test, url)) = pooler().await else {
        return;
    };
    let monitor = Monitor::new(Config::default());
    let pool = options(&monitor).connect(&url).await.expect("a pool");
    let refused = (&pool).prepare(sqlx::SqlStr::from_static("SELECT 1")).await;
    let error = refused.expect_err("an error").to_string();
    assert!(error.contains("prepared_statements(false)"), "{error}");

    let direct = PgPoolOptions::new()
        .monitor(&monitor)
        .connect(&test.url)
        .await
        .expect("a pool without a pooler");
    let mut conn = direct.acquire().await.expect("a connection");
    conn.prepare(sqlx::SqlStr::from_static("SELECT 1"))
        .await
        .expect("a statement");
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_prepared_statements")
        .fetch_one(&mut *conn)
        .await
        .expect("a count");
    assert_eq!(count, 2);
}
