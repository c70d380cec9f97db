//! User code: rows read one by one, to the end and half way, from the pool and from guards.

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use sqlx::postgres::PgRow;
use sqlx::{Executor, Row};

use crate::db::{PgPool, PgPoolOptions, all_back};
use crate::ground;
use crate::support::TestDb;

/// One connection only: what a dropped stream still held would be missed at once.
async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await;
    Some((db, pool.expect("the server answers")))
}

/// A stream that borrows the pool.
fn numbers(pool: &PgPool) -> BoxStream<'_, sqlx::Result<i32>> {
    sqlx::query_scalar("SELECT generate_series(1, 1000)").fetch(pool)
}

/// A stream that borrows nothing, as a task or a response body needs it: sqlx's `fetch` of the
/// executor itself keeps a handle of the pool, not the reference.
fn owned_numbers(pool: &PgPool) -> BoxStream<'static, sqlx::Result<PgRow>> {
    pool.fetch("SELECT generate_series(1, 1000)")
}

/// A stream of unnamed type that borrows the pool.
fn odd(pool: &PgPool) -> impl Stream<Item = sqlx::Result<i32>> + Send + '_ {
    numbers(pool).try_filter(|n| std::future::ready(n % 2 == 1))
}

#[tokio::test]
async fn a_stream_on_the_pool_is_read_to_its_end() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut rows = sqlx::query("SELECT generate_series(1, 1000)").fetch(&pool);
    let mut sum = 0;
    while let Some(row) = rows.try_next().await? {
        sum += row.get::<i32, _>(0);
    }
    drop(rows);
    assert_eq!(sum, 500_500);
    assert_eq!(odd(&pool).try_collect::<Vec<_>>().await?.len(), 500);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_stream_on_the_pool_moves_to_another_task() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let stream = owned_numbers(&pool);
    let count = tokio::spawn(stream.try_fold(0, async |n, _| Ok(n + 1)));
    assert_eq!(count.await.expect("the task ends")?, 1000);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_stream_dropped_half_way_gives_its_connection_back() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let three: Vec<i32> = numbers(&pool).take(3).try_collect().await?;
    assert_eq!(three, [1, 2, 3]);
    // There is only this one connection: it is back, and in step with the server.
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await?;
    assert_eq!(one, 1);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_guard_streams_and_is_used_again_when_the_stream_is_gone() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut conn = pool.acquire().await?;
    {
        let mut rows = sqlx::query("SELECT generate_series(1, 1000)").fetch(&mut *conn);
        rows.try_next().await?;
    }
    let two: i32 = sqlx::query_scalar("SELECT 2").fetch_one(&mut *conn).await?;
    drop(conn);

    let mut tx = pool.begin().await?;
    let mut rows = sqlx::query_scalar("SELECT generate_series(1, 3)").fetch(&mut *tx);
    let mut seen: Vec<i32> = Vec::new();
    while let Some(n) = rows.next().await {
        seen.push(n?);
    }
    drop(rows);
    tx.commit().await?;
    assert_eq!((two, seen), (2, vec![1, 2, 3]));
    all_back(&pool).await;
    Ok(())
}
