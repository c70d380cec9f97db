//! A node-postgres tenant wrapper: `withTenant(id, fn)` over `pool.connect()`, `SET`, `release()`.
//!
//! Reads `DATABASE_URL`. The tenant ends with its transaction, whatever becomes of the work: there is
//! no `finally { client.release() }` to forget. A role for which policies do not hold is refused at the
//! start; this one stands for yours, which has grants on the tables. Where the URL has such a role
//! already, it is `TenantPool::new`.

use leaktrace::PgPool;
use leaktrace::kit::{PoolSettings, TenantPool};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = PoolSettings::from_env()?.tenant_variable("app.tenant");
    let pool: PgPool = settings.connect().await?;
    let tenants = TenantPool::with_role(pool, "app.tenant", "pg_monitor").await?;
    let ask = "SELECT current_setting('app.tenant', true)";
    let inside: String = tenants
        .transaction("acme", async |tx| {
            sqlx::query_scalar(ask).fetch_one(&mut **tx).await
        })
        .await?;
    let bare = tenants.bypass_tenant("statistics");
    let outside: Option<String> = sqlx::query_scalar(ask).fetch_one(&bare).await?;
    println!("inside {inside:?}, outside {outside:?}");
    Ok(())
}
