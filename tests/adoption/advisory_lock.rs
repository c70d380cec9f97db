//! User code: `PgAdvisoryLock` around a connection, a transaction, and loans of both.

use sqlx::Either;
use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockKey};

use crate::db::{PgPool, PgPoolOptions, PoolConnection, all_back};
use crate::ground;
use crate::support::TestDb;

async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new().connect_with(options).await;
    Some((db, pool.expect("the server answers")))
}

async fn is_free(pool: &PgPool, lock: &PgAdvisoryLock) -> sqlx::Result<bool> {
    let conn = pool.acquire().await?;
    Ok(match lock.try_acquire(conn).await? {
        Either::Left(guard) => {
            guard.release_now().await?;
            true
        }
        Either::Right(_conn) => false,
    })
}

#[tokio::test]
async fn a_lock_takes_a_connection_and_gives_it_back() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let lock = PgAdvisoryLock::new("leaktrace adoption: connection");
    let mut guard = lock.acquire(pool.acquire().await?).await?;
    // The guard is used as the connection that it holds.
    let one: i32 = sqlx::query_scalar("SELECT 1")
        .fetch_one(&mut *guard)
        .await?;
    assert_eq!(one, 1);
    assert!(!is_free(&pool, &lock).await?);

    let conn: PoolConnection<sqlx::Postgres> = guard.release_now().await?;
    drop(conn);
    assert!(is_free(&pool, &lock).await?);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_lock_takes_a_transaction() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let lock = PgAdvisoryLock::with_key(PgAdvisoryLockKey::IntPair(4711, 42));
    let guard = lock.acquire(pool.begin().await?).await?;
    assert!(!is_free(&pool, &lock).await?);
    let mut tx = guard.release_now().await?;
    sqlx::query("INSERT INTO notes (body) VALUES ('under a lock')")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    assert!(is_free(&pool, &lock).await?);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_lock_takes_a_loan() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let lock = PgAdvisoryLock::new("leaktrace adoption: loan");
    let mut conn = pool.acquire().await?;
    lock.acquire(&mut conn).await?.release_now().await?;
    lock.acquire(&mut *conn).await?.release_now().await?;
    drop(conn);
    let mut tx = pool.begin().await?;
    lock.acquire(&mut tx).await?.release_now().await?;
    tx.rollback().await?;
    assert!(is_free(&pool, &lock).await?);
    all_back(&pool).await;
    Ok(())
}
