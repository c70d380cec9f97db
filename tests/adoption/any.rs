//! User code: the `Any` driver, which learns its database from the URL while it runs.

use futures::TryStreamExt;
use sqlx::any::install_default_drivers;
use sqlx::{Acquire, Any, AnyConnection, AnyExecutor, Executor, Row};

use crate::db::{AnyPool, AnyPoolOptions, Transaction, all_back};
use crate::support::db::sqlite_memory;
use crate::support::{Db, database};

const WRITE: &str = "INSERT INTO notes (body) VALUES ('any')";

async fn write(conn: &mut AnyConnection) -> sqlx::Result<u64> {
    Ok(sqlx::query(WRITE).execute(conn).await?.rows_affected())
}

async fn write_in(tx: &mut Transaction<'_, Any>) -> sqlx::Result<u64> {
    sqlx::query(WRITE).execute(&mut **tx).await?;
    write(tx).await
}

async fn count(executor: impl AnyExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(executor)
        .await
}

async fn write_twice<'a>(from: impl Acquire<'a, Database = Any>) -> sqlx::Result<()> {
    let mut tx = from.begin().await?;
    write(&mut tx).await?;
    write(&mut tx).await?;
    tx.commit().await
}

/// The same code for each URL; a temporary table needs the one connection of its pool.
async fn the_usual_shapes(url: &str) -> sqlx::Result<()> {
    install_default_drivers();
    let pool: AnyPool = AnyPoolOptions::new()
        .max_connections(1)
        .connect(url)
        .await?;
    pool.execute("CREATE TEMPORARY TABLE notes (body VARCHAR(20) NOT NULL)")
        .await?;

    let mut conn = pool.acquire().await?;
    assert_eq!(write(&mut conn).await?, 1);
    write_twice(&mut conn).await?;
    assert_eq!(count(&mut *conn).await?, 3);
    drop(conn);

    let mut tx = pool.begin().await?;
    write_in(&mut tx).await?;
    write_twice(&mut tx).await?;
    assert_eq!(count(&mut *tx).await?, 7);
    tx.commit().await?;

    let mut tx = pool.begin().await?;
    write(&mut tx).await?;
    drop(tx);

    write_twice(&pool).await?;
    let rows: Vec<String> = sqlx::query("SELECT body FROM notes")
        .fetch(&pool)
        .map_ok(|row| row.get(0))
        .try_collect()
        .await?;
    assert_eq!(rows, ["any"; 9]);
    all_back(&pool).await;
    pool.close().await;
    Ok(())
}

#[tokio::test]
async fn the_usual_shapes_run_on_any_of_sqlite() -> sqlx::Result<()> {
    the_usual_shapes(sqlite_memory().as_any()).await
}

#[tokio::test]
async fn the_usual_shapes_run_on_any_of_postgres() -> sqlx::Result<()> {
    let Some(db) = database(Db::Postgres).await else {
        return Ok(());
    };
    the_usual_shapes(db.as_any()).await
}

#[tokio::test]
async fn the_usual_shapes_run_on_any_of_mariadb() -> sqlx::Result<()> {
    let Some(db) = database(Db::MySql).await else {
        return Ok(());
    };
    the_usual_shapes(db.as_any()).await
}
