//! What each bug looks like when it is gone.

use std::time::Duration;

use futures::TryStreamExt;
use leaktrace::{PgPool, Scope};
use tokio::time::timeout;

use super::{Failure, Partner, Result, check};

async fn held_too_long(pool: &PgPool, supplier: &Partner, id: i64) -> Result<()> {
    let stock = sqlx::query_scalar("SELECT stock FROM articles WHERE id = $1").bind(id);
    let left: i32 = stock.fetch_one(pool).await?; // The connection is back here.
    match left {
        0 => supplier.ask("supplies").await.map(drop),
        _ => Ok(()),
    }
}

async fn idle_in_transaction(pool: &PgPool, carrier: &Partner, id: i64) -> Result<()> {
    let label = carrier.ask("label").await?;
    let mut tx = pool.begin().await?;
    sqlx::query("UPDATE orders SET state = 'shipped', label = $1 WHERE id = $2")
        .bind(label)
        .bind(id)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

async fn outlived_request(pool: PgPool, carrier: Partner, id: i64) -> Result<&'static str> {
    let job = Scope::new("order a label");
    tokio::spawn(async move {
        job.run(async {
            let label = carrier.ask("label").await?;
            sqlx::query("UPDATE orders SET label = $1 WHERE id = $2")
                .bind(label)
                .bind(id)
                .execute(&pool) // Taken when it is needed, by the task that needs it.
                .await?;
            Ok::<_, Failure>(())
        })
        .await
    });
    Ok("accepted")
}

async fn returned_late(pool: &PgPool, archive: &Partner) -> Result<()> {
    let exports = pool
        .labeled("nightly export")
        .threshold(Duration::from_secs(600));
    let mut conn = exports.acquire().await?;
    let mut rows = sqlx::query_scalar("SELECT id FROM orders").fetch(&mut *conn);
    while let Some(id) = rows.try_next().await? {
        archive.send(id).await?;
    }
    Ok(())
}

async fn exhausted(pool: &PgPool, id: i64) -> Result<()> {
    let mut tx = pool.begin().await?;
    let price: i64 = sqlx::query_scalar("SELECT price FROM articles WHERE id = $1")
        .bind(id)
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query("UPDATE orders SET price = $1 WHERE id = $2")
        .bind(price)
        .bind(id)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

async fn dirty_return(pool: &PgPool, id: i64) -> Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query("UPDATE orders SET state = 'paid' WHERE id = $1")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    check(id)?; // Rolled back here.
    Ok(tx.commit().await?)
}

async fn lost_writes(pool: &PgPool, id: i64) -> Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query("UPDATE orders SET state = 'paid' WHERE id = $1")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO payments (order_id) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

async fn commit_unknown(pool: &PgPool, id: i64) -> Result<()> {
    let mut tx = pool.begin().await?;
    let pay = sqlx::query("UPDATE orders SET state = 'paid' WHERE id = $1").bind(id);
    timeout(Duration::from_secs(2), pay.execute(&mut *tx)).await??;
    Ok(tx.commit().await?)
}

async fn stuck_return(pool: &PgPool) -> Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query("SET LOCAL statement_timeout = '2s'")
        .execute(&mut *tx)
        .await?;
    sqlx::query("SELECT count(*) FROM orders a, orders b, orders c")
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

async fn close_blocked(pool: &PgPool) -> Result<()> {
    if let Err(leaks) = pool.close_within(Duration::from_secs(5)).await {
        tracing::error!("closing anyway: {leaks}");
    }
    Ok(())
}
