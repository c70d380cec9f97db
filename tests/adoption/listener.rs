//! User code: `PgListener`. It keeps a pool of its own kind and asks for sqlx's: `as_sqlx`.

use sqlx::postgres::PgListener;

use crate::db::{PgPool, PgPoolOptions, all_back, as_sqlx};
use crate::ground;

#[tokio::test]
async fn a_listener_hears_what_the_pool_notifies() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    let mut listener = PgListener::connect_with(as_sqlx(&pool)).await?;
    listener.listen("adoption").await?;

    sqlx::query("SELECT pg_notify('adoption', 'by the pool')")
        .execute(&pool)
        .await?;
    let mut tx = pool.begin().await?;
    sqlx::query("NOTIFY adoption, 'by a transaction'")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;

    assert_eq!(listener.recv().await?.payload(), "by the pool");
    assert_eq!(listener.recv().await?.payload(), "by a transaction");
    drop(listener);
    all_back(&pool).await;
    Ok(())
}
