//! User code: `raw_sql` scripts of several statements, and plain strings handed to an executor.

use futures::TryStreamExt;
use sqlx::{Either, Executor, Row};

use crate::db::{PgPool, PgPoolOptions, all_back};
use crate::ground;

#[tokio::test]
async fn a_script_runs_on_the_pool_a_connection_and_a_transaction() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;

    sqlx::raw_sql("INSERT INTO notes (body) VALUES ('a'); INSERT INTO notes (body) VALUES ('b')")
        .execute(&pool)
        .await?;

    let mut conn = pool.acquire().await?;
    let rows = sqlx::raw_sql("SELECT body FROM notes; SELECT 'z'")
        .fetch_all(&mut *conn)
        .await?;
    assert_eq!(rows.len(), 3);
    drop(conn);

    let mut tx = pool.begin().await?;
    let steps: Vec<_> = sqlx::raw_sql("UPDATE notes SET stars = 1; SELECT count(*) FROM notes")
        .fetch_many(&mut *tx)
        .try_collect()
        .await?;
    assert!(matches!(&steps[0], Either::Left(done) if done.rows_affected() == 2));
    assert!(matches!(&steps[1], Either::Right(row) if row.get::<i64, _>(0) == 2));
    tx.rollback().await?;
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_plain_string_is_a_statement() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;

    pool.execute("INSERT INTO notes (body) VALUES ('by the pool')")
        .await?;
    let mut conn = pool.acquire().await?;
    conn.execute("INSERT INTO notes (body) VALUES ('by a connection')")
        .await?;
    drop(conn);
    let mut tx = pool.begin().await?;
    tx.execute("INSERT INTO notes (body) VALUES ('by a transaction')")
        .await?;
    let row = tx.fetch_one("SELECT count(*) FROM notes").await?;
    assert_eq!(row.get::<i64, _>(0), 3);
    tx.commit().await?;

    let rows = pool.fetch_all("SELECT body FROM notes ORDER BY id").await?;
    assert_eq!(rows.len(), 3);
    all_back(&pool).await;
    Ok(())
}
