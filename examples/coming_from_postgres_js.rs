//! A postgres.js pool module: options, `ssl: 'verify-full'`, migrations, an all-or-nothing batch.
//!
//! Reads `DATABASE_URL` and `PGSSLROOTCERT`. Was: `postgres(url, { max: 10, idle_timeout: 20, … })`
//! and `sql.begin(async sql => { … })`.

use std::time::Duration;

use leaktrace::PgPool;
use leaktrace::kit::PoolSettings;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = PoolSettings::default()
        .max_connections(10) // max
        .idle_timeout(Some(Duration::from_secs(20))) // idle_timeout
        .connect_timeout(Duration::from_secs(5)) // connect_timeout
        .production() // ssl: verify-full
        .overridden_by(|name| std::env::var(name).ok())?;
    let pool: PgPool = settings.connect().await?;
    sqlx::migrate!("examples/migrations").run(&pool).await?;

    let batch = [(1_i64, "apple"), (2, "pear"), (1, "once more")];
    let saved = pool
        .transaction(async |tx| {
            for (id, item) in batch {
                let insert = sqlx::query("INSERT INTO example.orders VALUES ($1, $2)");
                insert.bind(id).bind(item).execute(&mut **tx).await?;
            }
            Ok::<_, sqlx::Error>(())
        })
        .await;
    println!("all or nothing: {}", saved.unwrap_err());
    Ok(())
}
