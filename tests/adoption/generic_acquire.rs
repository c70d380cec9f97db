//! User code: functions that take whatever a connection or a transaction can be had from.

use sqlx::{Acquire, Postgres};

use crate::db::{PgPool, PgPoolOptions, all_back};
use crate::ground;
use crate::support::TestDb;

async fn write_two<'a, A>(from: A, body: &str) -> sqlx::Result<()>
where
    A: Acquire<'a, Database = Postgres>,
{
    let mut conn = from.acquire().await?;
    for _ in 0..2 {
        sqlx::query("INSERT INTO notes (body) VALUES ($1)")
            .bind(body)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

async fn write_both_or_none(
    from: impl Acquire<'_, Database = Postgres>,
    bodies: [Option<&str>; 2],
) -> sqlx::Result<()> {
    let mut tx = from.begin().await?;
    for body in bodies {
        sqlx::query("INSERT INTO notes (body) VALUES ($1)")
            .bind(body)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await
}

async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new().connect_with(options).await;
    Some((db, pool.expect("the server answers")))
}

async fn count(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(pool)
        .await
}

#[tokio::test]
async fn a_connection_is_acquired_from_anything() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    write_two(&pool, "the pool").await?;
    let mut conn = pool.acquire().await?;
    write_two(&mut conn, "a connection").await?;
    write_two(&mut *conn, "its loan").await?;
    drop(conn);
    let mut tx = pool.begin().await?;
    write_two(&mut tx, "a transaction").await?;
    write_two(&mut *tx, "its loan").await?;
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 10);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_transaction_is_begun_from_anything() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    write_both_or_none(&pool, [Some("a"), Some("b")]).await?;
    let mut conn = pool.acquire().await?;
    write_both_or_none(&mut conn, [Some("c"), Some("d")]).await?;
    write_both_or_none(&mut *conn, [Some("e"), Some("f")]).await?;
    drop(conn);
    let mut tx = pool.begin().await?;
    write_both_or_none(&mut tx, [Some("g"), Some("h")]).await?;
    write_both_or_none(&mut *tx, [Some("i"), Some("j")]).await?;
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 10);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_transaction_begun_from_anything_is_undone_when_it_fails() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    // The second row is refused: the column is NOT NULL.
    assert!(write_both_or_none(&pool, [Some("a"), None]).await.is_err());
    let mut conn = pool.acquire().await?;
    assert!(
        write_both_or_none(&mut conn, [Some("a"), None])
            .await
            .is_err()
    );
    drop(conn);
    let mut tx = pool.begin().await?;
    assert!(
        write_both_or_none(&mut tx, [Some("a"), None])
            .await
            .is_err()
    );
    tx.commit().await?;
    assert_eq!(count(&pool).await?, 0);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn an_acquire_moves_to_another_task() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let of_task = pool.clone();
    let task =
        tokio::spawn(async move { write_both_or_none(&of_task, [Some("a"), Some("b")]).await });
    task.await.expect("the task ends")?;
    // As sqlx documents it, the future of `acquire` borrows nothing.
    let conn = tokio::spawn(pool.acquire()).await.expect("the task ends")?;
    drop(conn);
    assert_eq!(count(&pool).await?, 2);
    all_back(&pool).await;
    Ok(())
}
