//! The bug behind each kind of finding.

use std::time::Duration;

use futures::TryStreamExt;
use leaktrace::{PgPool, PoolConnection};
use sqlx::Postgres;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

use super::{Failure, Partner, Result, check};

mod reports;

async fn held_too_long(pool: &PgPool, supplier: &Partner, id: i64) -> Result<()> {
    let stock = sqlx::query_scalar("SELECT stock FROM articles WHERE id = $1").bind(id);
    // The guard is a temporary of the `match`: it lives as long as the arms.
    match stock.fetch_one(&mut *pool.acquire().await?).await? {
        0_i32 => supplier.ask("supplies").await.map(drop),
        _ => Ok(()),
    }
}

async fn idle_in_transaction(pool: &PgPool, carrier: &Partner, id: i64) -> Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query("UPDATE orders SET state = 'shipping' WHERE id = $1")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    // The row stays locked while another company's computer thinks.
    let label = carrier.ask("label").await?;
    sqlx::query("UPDATE orders SET label = $1 WHERE id = $2")
        .bind(label)
        .bind(id)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

async fn outlived_request(pool: PgPool, carrier: Partner, id: i64) -> Result<&'static str> {
    let mut conn = pool.acquire().await?;
    // The task takes the connection along, and the answer does not wait for it.
    tokio::spawn(async move {
        let label = carrier.ask("label").await?;
        sqlx::query("UPDATE orders SET label = $1 WHERE id = $2")
            .bind(label)
            .bind(id)
            .execute(&mut *conn)
            .await?;
        Ok::<_, Failure>(())
    });
    Ok("accepted")
}

async fn returned_late(pool: &PgPool, archive: &Partner) -> Result<()> {
    let mut conn = pool.acquire().await?;
    let mut rows = sqlx::query_scalar("SELECT id FROM orders").fetch(&mut *conn);
    // The rows are read no faster than the archive takes them.
    while let Some(id) = rows.try_next().await? {
        archive.send(id).await?;
    }
    Ok(())
}

async fn exhausted(pool: &PgPool, id: i64) -> Result<()> {
    let mut tx = pool.begin().await?;
    // A second connection, while the first is held. When as many requests as the pool has
    // connections are here at once, each waits for one of the others.
    let price: i64 = sqlx::query_scalar("SELECT price FROM articles WHERE id = $1")
        .bind(id)
        .fetch_one(pool)
        .await?;
    sqlx::query("UPDATE orders SET price = $1 WHERE id = $2")
        .bind(price)
        .bind(id)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

async fn dirty_return(pool: &PgPool, id: i64) -> Result<()> {
    let mut conn = pool.acquire().await?;
    sqlx::raw_sql("BEGIN").execute(&mut *conn).await?;
    sqlx::query("UPDATE orders SET state = 'paid' WHERE id = $1")
        .bind(id)
        .execute(&mut *conn)
        .await?;
    check(id)?; // An error leaves here, and nobody says ROLLBACK.
    sqlx::raw_sql("COMMIT").execute(&mut *conn).await?;
    Ok(())
}

async fn lost_writes(pool: &PgPool, id: i64) -> Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query("UPDATE orders SET state = 'paid' WHERE id = $1")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    // If the row is there already, this fails, and PostgreSQL aborts the whole transaction.
    let _ = sqlx::query("INSERT INTO payments (order_id) VALUES ($1)")
        .bind(id)
        .execute(&mut *tx)
        .await;
    Ok(tx.commit().await?) // Ok, and the server has rolled back.
}

async fn commit_unknown(pool: &PgPool, id: i64) -> Result<()> {
    let pay = async {
        let mut tx = pool.begin().await?;
        sqlx::query("UPDATE orders SET state = 'paid' WHERE id = $1")
            .bind(id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    };
    // If the time is over while COMMIT is on its way, the order is paid and this is an error.
    Ok(timeout(Duration::from_secs(2), pay).await??)
}

async fn stuck_return(pool: &PgPool) -> Result<()> {
    let mut conn = pool.acquire().await?;
    let report = sqlx::query("SELECT count(*) FROM orders a, orders b, orders c");
    // The client gives up after 2 s. The server has not been told, and goes on.
    timeout(Duration::from_secs(2), report.execute(&mut *conn)).await??;
    Ok(())
}

static OWN: OnceCell<Mutex<PoolConnection<Postgres>>> = OnceCell::const_new();

async fn close_blocked(pool: &PgPool) -> Result<()> {
    OWN.get_or_try_init(async || pool.acquire().await.map(Mutex::new))
        .await?;
    // At shutdown: a static is never dropped, so this never ends.
    pool.close().await;
    Ok(())
}
