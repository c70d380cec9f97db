//! User code: PostgreSQL's COPY, by a guard's connection and by the pool's extension trait.
//!
//! `PgPoolCopyExt` is implemented for sqlx's pool alone, so that one form goes through `as_sqlx`.

use futures::TryStreamExt;
use sqlx::postgres::PgPoolCopyExt;

use crate::db::{PgPool, PgPoolOptions, all_back, as_sqlx};
use crate::ground;
use crate::support::TestDb;

const IN: &str = "COPY notes (body, stars) FROM STDIN (FORMAT csv)";
const OUT: &str = "COPY (SELECT body, stars FROM notes ORDER BY id) TO STDOUT (FORMAT csv)";

async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new().connect_with(options).await;
    Some((db, pool.expect("the server answers")))
}

#[tokio::test]
async fn copy_goes_in_and_out_by_a_connection() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut conn = pool.acquire().await?;
    let mut copy = conn.copy_in_raw(IN).await?;
    copy.send(b"one,1\n".as_slice()).await?;
    copy.read_from(b"two,2\n".as_slice()).await?;
    assert_eq!(copy.finish().await?, 2);

    let out: Vec<_> = conn.copy_out_raw(OUT).await?.try_collect().await?;
    assert_eq!(out.concat(), b"one,1\ntwo,2\n");
    drop(conn);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn copy_in_a_transaction_is_rolled_back_with_it() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut tx = pool.begin().await?;
    let mut copy = tx.copy_in_raw(IN).await?;
    copy.send(b"gone,1\n".as_slice()).await?;
    copy.finish().await?;
    tx.rollback().await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(&pool)
        .await?;
    assert_eq!(count, 0);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn copy_by_the_pool_goes_through_sqlx_s_own() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut copy = as_sqlx(&pool).copy_in_raw(IN).await?;
    copy.send(b"three,3\n".as_slice()).await?;
    assert_eq!(copy.finish().await?, 1);
    let out: Vec<_> = as_sqlx(&pool)
        .copy_out_raw(OUT)
        .await?
        .try_collect()
        .await?;
    assert_eq!(out.concat(), b"three,3\n");
    all_back(&pool).await;
    Ok(())
}
