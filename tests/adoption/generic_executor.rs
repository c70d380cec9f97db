//! User code: functions that take any executor, in the forms that are seen in the wild.

use sqlx::{Executor, PgExecutor, Postgres};

use crate::db::{PgPool, PgPoolOptions, all_back};
use crate::ground;
use crate::support::TestDb;

async fn write<'e, E>(executor: E, body: &str) -> sqlx::Result<i64>
where
    E: Executor<'e, Database = Postgres>,
{
    sqlx::query_scalar("INSERT INTO notes (body) VALUES ($1) RETURNING id")
        .bind(body)
        .fetch_one(executor)
        .await
}

async fn count<'e, E: PgExecutor<'e>>(executor: E) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(executor)
        .await
}

async fn longest(executor: impl PgExecutor<'_>) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT body FROM notes ORDER BY length(body) DESC, id LIMIT 1")
        .fetch_optional(executor)
        .await
}

/// What a handler needs of such a function: its future moves between threads.
fn is_send<T: Send>(value: T) -> T {
    value
}

async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new().connect_with(options).await;
    Some((db, pool.expect("the server answers")))
}

#[tokio::test]
async fn a_generic_function_takes_every_executor() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    write(&pool, "the pool").await?;

    let mut conn = pool.acquire().await?;
    is_send(write(&mut *conn, "a connection")).await?;
    assert_eq!(is_send(count(&mut *conn)).await?, 2);
    drop(conn);

    let mut tx = pool.begin().await?;
    is_send(write(&mut *tx, "a transaction")).await?;
    assert_eq!(count(&mut *tx).await?, 3);
    assert_eq!(longest(&mut *tx).await?.as_deref(), Some("a transaction"));
    tx.rollback().await?;

    assert_eq!(is_send(count(&pool)).await?, 2);
    assert_eq!(longest(&pool).await?.as_deref(), Some("a connection"));
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_generic_function_runs_in_a_spawned_task() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let of_pool = pool.clone();
    let by_pool = tokio::spawn(async move { write(&of_pool, "spawned").await });
    by_pool.await.expect("the task ends")?;
    let mut tx = pool.begin().await?;
    let by_tx = tokio::spawn(async move {
        write(&mut *tx, "spawned too").await?;
        tx.commit().await
    });
    by_tx.await.expect("the task ends")?;
    assert_eq!(count(&pool).await?, 2);
    all_back(&pool).await;
    Ok(())
}
