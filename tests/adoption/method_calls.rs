//! User code: sqlx's `Connection` and `Acquire` traits called as methods on guards.

use sqlx::{Connection, Row};

use crate::db::{PgPool, PgPoolOptions, all_back};
use crate::ground;
use crate::support::TestDb;

async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new().connect_with(options).await;
    Some((db, pool.expect("the server answers")))
}

#[tokio::test]
async fn a_guard_answers_to_the_methods_of_a_connection() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut conn = pool.acquire().await?;
    conn.ping().await?;
    assert!(!conn.is_in_transaction());
    conn.clear_cached_statements().await?;
    assert_eq!(conn.cached_statements_size(), 0);
    conn.shrink_buffers();
    assert!(conn.server_version_num().is_some());
    drop(conn);

    let mut tx = pool.begin().await?;
    tx.ping().await?;
    assert!(tx.is_in_transaction());
    tx.rollback().await?;
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_connection_begins_a_transaction_of_its_own() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut conn = pool.acquire().await?;
    let mut tx = conn.begin().await?;
    sqlx::query("INSERT INTO notes (body) VALUES ('kept')")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;

    let mut tx = conn.begin().await?;
    sqlx::query("INSERT INTO notes (body) VALUES ('dropped')")
        .execute(&mut *tx)
        .await?;
    drop(tx);

    let mut tx = conn.begin_with("BEGIN READ ONLY").await?;
    let refused = sqlx::query("INSERT INTO notes (body) VALUES ('refused')")
        .execute(&mut *tx)
        .await;
    assert!(refused.is_err());
    let nested = tx.begin_with("BEGIN READ WRITE").await.err();
    assert!(matches!(
        nested,
        Some(sqlx::Error::InvalidSavePointStatement)
    ));
    tx.rollback().await?;

    let rows = sqlx::query("SELECT body FROM notes")
        .fetch_all(&mut *conn)
        .await?;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<&str, _>(0), "kept");
    drop(conn);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_connection_runs_a_closure_in_a_transaction() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut conn = pool.acquire().await?;
    let kept: i64 = conn
        .transaction(|tx| {
            Box::pin(async move {
                sqlx::query_scalar("INSERT INTO notes (body) VALUES ('kept') RETURNING id")
                    .fetch_one(&mut **tx)
                    .await
            })
        })
        .await?;
    assert_eq!(kept, 1);
    let failed: sqlx::Result<()> = conn
        .transaction(|tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO notes (body) VALUES ('dropped')")
                    .execute(&mut **tx)
                    .await?;
                Err(sqlx::Error::RowNotFound)
            })
        })
        .await;
    assert!(matches!(failed, Err(sqlx::Error::RowNotFound)));
    drop(conn);
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(&pool)
        .await?;
    assert_eq!(count, 1);
    all_back(&pool).await;
    Ok(())
}
