//! A node-postgres tenant wrapper: `withTenant(id, fn)` over `pool.connect()`, `SET`, `release()`.
//!
//! Reads `DATABASE_URL`. The tenant ends with its transaction, whatever becomes of the work: there is
//! no `finally { client.release() }` to forget.

use leaktrace::kit::PoolSettings;
use leaktrace::{PgPool, PgTransaction};

async fn with_tenant<T>(
    pool: &PgPool,
    tenant: &str,
    work: impl AsyncFnOnce(&mut PgTransaction<'_>) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let set = sqlx::query("SELECT set_config('app.tenant', $1, true)");
    set.bind(tenant).execute(&mut *tx).await?;
    let value = work(&mut tx).await?;
    tx.commit().await.map(|()| value)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool: PgPool = PoolSettings::from_env()?.connect().await?;
    let ask = "SELECT current_setting('app.tenant', true)";
    let inside: String = with_tenant(&pool, "acme", async |tx| {
        sqlx::query_scalar(ask).fetch_one(&mut **tx).await
    })
    .await?;
    let outside: Option<String> = sqlx::query_scalar(ask).fetch_one(&pool).await?;
    println!("inside {inside:?}, outside {outside:?}");
    Ok(())
}
