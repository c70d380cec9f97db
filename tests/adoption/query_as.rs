//! User code: `query`, `query_as` with `FromRow` and `query_scalar`, unchecked, on every executor.

use sqlx::{FromRow, Row};

use crate::db::{PgPool, PgPoolOptions, all_back};
use crate::ground;
use crate::support::TestDb;

#[derive(Debug, FromRow, PartialEq)]
struct Note {
    id: i64,
    body: String,
    stars: Option<i32>,
}

async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new().connect_with(options).await;
    Some((db, pool.expect("the server answers")))
}

#[tokio::test]
async fn rows_become_structs_on_every_executor() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let done = sqlx::query("INSERT INTO notes (body, stars) VALUES ($1, $2)")
        .bind("first")
        .bind(3)
        .execute(&pool)
        .await?;
    assert_eq!(done.rows_affected(), 1);

    let by_pool: Vec<Note> = sqlx::query_as("SELECT id, body, stars FROM notes")
        .fetch_all(&pool)
        .await?;

    let mut conn = pool.acquire().await?;
    let by_conn: Note = sqlx::query_as("SELECT id, body, stars FROM notes")
        .fetch_one(&mut *conn)
        .await?;
    drop(conn);

    let mut tx = pool.begin().await?;
    let by_tx: Option<Note> = sqlx::query_as("SELECT id, body, stars FROM notes")
        .fetch_optional(&mut *tx)
        .await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(&mut *tx)
        .await?;
    tx.rollback().await?;

    assert_eq!(by_pool, [by_conn]);
    assert_eq!(
        by_tx.map(|note| (note.body, note.stars)),
        Some(("first".into(), Some(3)))
    );
    assert_eq!(count, 1);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_pool_is_cloned_and_lent_in_all_the_usual_ways() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let shared = std::sync::Arc::new(pool.clone());
    let by_arc = sqlx::query("SELECT 1").fetch_one(&*shared).await?;
    let by_as_ref = sqlx::query("SELECT 2").fetch_one(shared.as_ref()).await?;
    let by_temporary = sqlx::query("SELECT 3").fetch_one(&pool.clone()).await?;
    let read: Vec<i32> = [by_arc, by_as_ref, by_temporary]
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(read, [1, 2, 3]);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_refused_statement_is_the_same_database_error() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let refused = sqlx::query("INSERT INTO notes (body) VALUES (NULL)")
        .execute(&pool)
        .await
        .expect_err("the column is NOT NULL");
    let refused = refused.into_database_error().expect("the server said so");
    assert!(refused.is_check_violation() || refused.code().as_deref() == Some("23502"));

    let missing = sqlx::query("SELECT id FROM notes").fetch_one(&pool).await;
    assert!(matches!(missing, Err(sqlx::Error::RowNotFound)));
    all_back(&pool).await;
    Ok(())
}
