//! User code: the main shapes once more, on SQLite.

use futures::TryStreamExt;
use sqlx::{Acquire, Executor, Row, Sqlite, SqliteConnection, SqliteExecutor};

use crate::db::{SqlitePool, SqlitePoolOptions, Transaction, all_back};
use crate::ground;
use crate::support::TestDb;
use crate::support::db::sqlite_memory;

async fn write(conn: &mut SqliteConnection, body: &str) -> sqlx::Result<i64> {
    let done = sqlx::query("INSERT INTO notes (body) VALUES (?)")
        .bind(body)
        .execute(conn)
        .await?;
    Ok(done.last_insert_rowid())
}

async fn write_in(tx: &mut Transaction<'_, Sqlite>, body: &str) -> sqlx::Result<i64> {
    sqlx::query("INSERT INTO notes (body) VALUES (?)")
        .bind(body)
        .execute(&mut **tx)
        .await?;
    write(tx, body).await
}

async fn count(executor: impl SqliteExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(executor)
        .await
}

async fn write_twice<'a>(
    from: impl Acquire<'a, Database = Sqlite>,
    body: &str,
) -> sqlx::Result<()> {
    let mut tx = from.begin().await?;
    write(&mut tx, body).await?;
    write(&mut tx, body).await?;
    tx.commit().await
}

/// One connection: two that write to one SQLite file get in each other's way.
async fn pool() -> sqlx::Result<(TestDb, SqlitePool)> {
    let (db, options) = ground::sqlite().await;
    let pool = SqlitePoolOptions::new().max_connections(1);
    Ok((db, pool.connect_with(options).await?))
}

#[tokio::test]
async fn the_usual_shapes_run_on_sqlite() -> sqlx::Result<()> {
    let (_db, pool) = pool().await?;
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

    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
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
async fn scripts_builders_and_half_read_streams_run_on_sqlite() -> sqlx::Result<()> {
    let (_db, pool) = pool().await?;
    sqlx::raw_sql("INSERT INTO notes (body) VALUES ('a'); INSERT INTO notes (body) VALUES ('b')")
        .execute(&pool)
        .await?;
    let mut insert = sqlx::QueryBuilder::<Sqlite>::new("INSERT INTO notes (body) ");
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

#[tokio::test]
async fn a_memory_database_lives_in_its_one_connection() -> sqlx::Result<()> {
    let db = sqlite_memory();
    let pool: SqlitePool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect(&db.url)
        .await?;
    pool.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
        .await?;
    write_twice(&pool, "a").await?;
    assert_eq!(count(&pool).await?, 2);
    all_back(&pool).await;
    Ok(())
}
