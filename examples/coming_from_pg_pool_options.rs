//! A hand-written `PgPoolOptions` block: the numbers move to the environment, the hook stays.
//!
//! Reads `DATABASE_URL`. Was: `PgPoolOptions::new().max_connections(20).min_connections(2)
//! .acquire_timeout(…).after_connect(|c, _| { SET statement_timeout … }).connect(&url)`.

use std::time::Duration;

use leaktrace::PgPool;
use leaktrace::kit::PoolSettings;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = PoolSettings::default()
        .max_connections(20)
        .min_connections(2)
        .acquire_timeout(Duration::from_secs(3))
        .statement_timeout(Some(Duration::from_secs(5))) // no hook for this
        .overridden_by(|name| std::env::var(name).ok())?;
    let options = settings.options().after_connect(|conn, _| {
        Box::pin(async move {
            let set = sqlx::query("SET search_path = public");
            set.execute(conn).await.map(drop)
        })
    });
    let pool: PgPool = settings.connect_with(options).await?;
    let limit: String = sqlx::query_scalar("SELECT current_setting('statement_timeout')")
        .fetch_one(&pool)
        .await?;
    println!("statements end after {limit}");
    Ok(())
}
