//! User code: the other spellings of `&mut *tx`, each as an executor and as an argument.

use std::ops::{Deref, DerefMut};

use sqlx::{Acquire, Executor, PgConnection, Postgres};

use crate::db::{PgPool, PgPoolOptions, PoolConnection, Transaction, all_back};
use crate::ground;

const WRITE: &str = "INSERT INTO notes (body) VALUES ('written')";

async fn write(conn: &mut PgConnection) -> sqlx::Result<()> {
    conn.execute(WRITE).await?;
    Ok(())
}

async fn on_any_loan(mut loan: impl AsMut<PgConnection>) -> sqlx::Result<()> {
    write(loan.as_mut()).await
}

async fn on_guards(
    conn: &mut PoolConnection<Postgres>,
    tx: &mut Transaction<'_, Postgres>,
) -> sqlx::Result<()> {
    sqlx::query(WRITE).execute(conn.deref_mut()).await?;
    sqlx::query(WRITE).execute(tx.deref_mut()).await?;
    sqlx::query(WRITE).execute(conn.as_mut()).await?;
    sqlx::query(WRITE).execute(tx.as_mut()).await?;
    sqlx::query(WRITE).execute(&mut **conn).await?;
    sqlx::query(WRITE).execute(&mut **tx).await?;
    write(conn.deref_mut()).await?;
    write(tx.deref_mut()).await?;
    on_any_loan(conn).await?;
    on_any_loan(tx).await
}

#[tokio::test]
async fn every_spelling_of_a_loan_is_an_executor_and_an_argument() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    let (mut conn, mut tx) = (pool.acquire().await?, pool.begin().await?);
    on_guards(&mut conn, &mut tx).await?;
    let _read_only: (&PgConnection, &PgConnection) = (conn.deref(), tx.deref());
    tx.commit().await?;
    {
        let lent = conn.acquire().await?;
        sqlx::query(WRITE).execute(lent).await?;
    }
    drop(conn);

    let mut tx = Some(pool.begin().await?);
    if let Some(tx) = tx.as_mut() {
        sqlx::query(WRITE).execute(&mut **tx).await?;
    }
    if let Some(tx) = &mut tx {
        write(tx).await?;
    }
    tx.take().expect("it is open").commit().await?;

    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(&pool)
        .await?;
    assert_eq!(count, 13);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_guard_is_used_and_gone_within_one_expression() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    sqlx::query(WRITE)
        .execute(&mut *pool.acquire().await?)
        .await?;
    write(&mut *pool.acquire().await?).await?;
    pool.acquire().await?.execute(WRITE).await?;
    let dropped = pool.begin().await?.execute(WRITE).await?;
    assert_eq!(dropped.rows_affected(), 1);
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(&mut *pool.begin().await?)
        .await?;
    assert_eq!(count, 3);
    all_back(&pool).await;
    Ok(())
}
