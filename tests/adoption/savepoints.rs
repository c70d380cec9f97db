//! User code: transactions inside transactions, as savepoints.

// sqlx asks for this import; where `begin` is a method of the type itself it is not needed.
#[allow(unused_imports)]
use sqlx::Acquire;
use sqlx::{PgConnection, Postgres};

use crate::db::{PgPool, PgPoolOptions, Transaction, all_back};
use crate::ground;

async fn write(conn: &mut PgConnection, body: &str) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO notes (body) VALUES ($1)")
        .bind(body)
        .execute(conn)
        .await?;
    Ok(())
}

/// A helper that may fail without taking its caller's transaction with it.
async fn attempt(tx: &mut Transaction<'_, Postgres>, body: &str, keep: bool) -> sqlx::Result<()> {
    let mut savepoint = tx.begin().await?;
    write(&mut savepoint, body).await?;
    if keep {
        savepoint.commit().await
    } else {
        savepoint.rollback().await
    }
}

#[tokio::test]
async fn a_savepoint_is_kept_or_undone_alone() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    let mut tx = pool.begin().await?;
    write(&mut tx, "outer").await?;
    attempt(&mut tx, "kept", true).await?;
    attempt(&mut tx, "undone", false).await?;
    {
        let mut savepoint = tx.begin().await?;
        write(&mut savepoint, "dropped").await?;
        let mut deeper = savepoint.begin().await?;
        write(&mut deeper, "dropped too").await?;
        deeper.commit().await?;
    }
    write(&mut tx, "after").await?;
    tx.commit().await?;

    let bodies: Vec<String> = sqlx::query_scalar("SELECT body FROM notes ORDER BY id")
        .fetch_all(&pool)
        .await?;
    assert_eq!(bodies, ["outer", "kept", "after"]);
    all_back(&pool).await;
    Ok(())
}
