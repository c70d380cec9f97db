//! User code: the main shapes once more, on MariaDB.

use futures::TryStreamExt;
use sqlx::{Acquire, Executor, MySql, MySqlConnection, MySqlExecutor, Row};

use crate::db::{MySqlPool, MySqlPoolOptions, Transaction, all_back};
use crate::ground;
use crate::support::TestDb;

async fn write(conn: &mut MySqlConnection, body: &str) -> sqlx::Result<u64> {
    let done = sqlx::query("INSERT INTO notes (body) VALUES (?)")
        .bind(body)
        .execute(conn)
        .await?;
    Ok(done.last_insert_id())
}

async fn write_in(tx: &mut Transaction<'_, MySql>, body: &str) -> sqlx::Result<u64> {
    sqlx::query("INSERT INTO notes (body) VALUES (?)")
        .bind(body)
        .execute(&mut **tx)
        .await?;
    write(tx, body).await
}

async fn count(executor: impl MySqlExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(executor)
        .await
}

async fn write_twice<'a>(from: impl Acquire<'a, Database = MySql>, body: &str) -> sqlx::Result<()> {
    let mut tx = from.begin().await?;
    write(&mut tx, body).await?;
    write(&mut tx, body).await?;
    tx.commit().await
}

async fn pool() -> Option<(TestDb, MySqlPool)> {
    let (db, options) = ground::mariadb().await?;
    let pool = MySqlPoolOptions::new()
        .max_connections(2)
        .connect_with(options)
        .await;
    Some((db, pool.expect("the server answers")))
}

#[tokio::test]
async fn the_usual_shapes_run_on_mariadb() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut conn = pool.acquire().await?;
    assert_eq!(write(&mut conn, "a").await?, 1);
    assert_eq!(count(&mut *conn).await?, 1);
    write_twice(&mut conn, "b").await?;
    conn.execute("INSERT INTO notes (body) VALUES ('c')")
        .await?;
    drop(conn);

    let mut tx = pool.begin().await?;
    write_in(&mut tx, "d").await?;
    write_twice(&mut tx, "e").await?;
    assert_eq!(count(&mut *tx).await?, 8);
    tx.commit().await?;

    let mut tx = pool
        .begin_with("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        .await?;
    write(&mut tx, "undone").await?;
    drop(tx);

    write_twice(&pool, "f").await?;
    assert_eq!(count(&pool).await?, 10);
    let bodies: String = sqlx::query("SELECT body FROM notes ORDER BY id")
        .fetch(&pool)
        .map_ok(|row| row.get::<String, _>(0))
        .try_collect()
        .await?;
    assert_eq!(bodies, "abbcddeeff");
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn scripts_builders_and_half_read_streams_run_on_mariadb() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    sqlx::raw_sql("INSERT INTO notes (body) VALUES ('a'); INSERT INTO notes (body) VALUES ('b')")
        .execute(&pool)
        .await?;
    let mut insert = sqlx::QueryBuilder::<MySql>::new("INSERT INTO notes (body) ");
    insert.push_values(["c", "d"], |mut row, body| {
        row.push_bind(body);
    });
    insert.build().execute(&pool).await?;

    let mut rows = sqlx::query("SELECT body FROM notes ORDER BY id").fetch(&pool);
    let first = rows.try_next().await?.map(|row| row.get::<String, _>(0));
    drop(rows);
    assert_eq!(first.as_deref(), Some("a"));
    assert_eq!(count(&pool).await?, 4);
    all_back(&pool).await;
    Ok(())
}
