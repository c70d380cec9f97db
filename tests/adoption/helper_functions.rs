//! User code: functions that take a connection or a transaction by reference.

use sqlx::{Connection, PgConnection, Postgres};

use crate::db::{PgPool, PgPoolOptions, PoolConnection, Transaction, all_back};
use crate::ground;
use crate::support::TestDb;

/// The usual helper: it does not care whether it is in a transaction.
async fn write(conn: &mut PgConnection, body: &str) -> sqlx::Result<i64> {
    let id = sqlx::query_scalar("INSERT INTO notes (body) VALUES ($1) RETURNING id")
        .bind(body)
        .fetch_one(&mut *conn)
        .await?;
    tag(conn, id, body).await?;
    Ok(id)
}

/// A helper of a helper, which borrows anew.
async fn tag(conn: &mut PgConnection, id: i64, tag: &str) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO tags (note_id, tag) VALUES ($1, $2)")
        .bind(id)
        .bind(tag)
        .execute(conn)
        .await?;
    Ok(())
}

/// A helper that insists on a transaction.
async fn write_in(tx: &mut Transaction<'_, Postgres>, body: &str) -> sqlx::Result<i64> {
    sqlx::query("INSERT INTO notes (body) VALUES ($1)")
        .bind(body)
        .execute(&mut **tx)
        .await?;
    write(tx, body).await
}

/// A helper that insists on a pooled connection.
async fn write_on(conn: &mut PoolConnection<Postgres>, body: &str) -> sqlx::Result<i64> {
    sqlx::query("INSERT INTO notes (body) VALUES ($1)")
        .bind(body)
        .execute(&mut **conn)
        .await?;
    write(conn, body).await
}

async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new().connect_with(options).await;
    Some((db, pool.expect("the server answers")))
}

async fn bodies(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT body FROM notes ORDER BY id")
        .fetch_all(pool)
        .await
}

#[tokio::test]
// The point is that each spelling compiles, also the longer one.
#[allow(clippy::explicit_auto_deref)]
async fn a_helper_takes_every_loan_of_a_guard() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut conn = pool.acquire().await?;
    write(&mut conn, "&mut conn").await?;
    write(&mut *conn, "&mut *conn").await?;
    write(conn.as_mut(), "conn.as_mut()").await?;
    drop(conn);

    let mut tx = pool.begin().await?;
    write(&mut tx, "&mut tx").await?;
    write(&mut *tx, "&mut *tx").await?;
    write(tx.as_mut(), "tx.as_mut()").await?;
    tx.commit().await?;

    let expected = [
        "&mut conn",
        "&mut *conn",
        "conn.as_mut()",
        "&mut tx",
        "&mut *tx",
        "tx.as_mut()",
    ];
    assert_eq!(bodies(&pool).await?, expected);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_helper_passes_its_transaction_on() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut tx = pool.begin().await?;
    write_in(&mut tx, "kept").await?;
    tx.commit().await?;
    let mut tx = pool.begin().await?;
    write_in(&mut tx, "dropped").await?;
    drop(tx);
    let mut conn = pool.acquire().await?;
    write_on(&mut conn, "on").await?;
    drop(conn);
    assert_eq!(bodies(&pool).await?, ["kept", "kept", "on", "on"]);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_helper_works_on_a_connection_that_no_pool_knows() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let mut alone = PgConnection::connect_with(&options).await?;
    assert_eq!(write(&mut alone, "alone").await?, 1);
    alone.close().await
}
