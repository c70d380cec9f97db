//! One `DATABASE_URL`: SQLite in development, PostgreSQL in production, and a bad setting that ends
//! the program with its name.
//!
//! ```sh
//! cargo run --example settings                                    # SQLite in memory
//! DATABASE_URL=postgres://app@localhost/orders PRODUCTION=1 …     # PostgreSQL, with TLS
//! DB_MAX_CONNECTIONS=many cargo run --example settings            # says what is wrong
//! ```
//!
//! Needs the features `kit` and `any`, and those of the databases.

use leaktrace::kit::PoolSettings;
use leaktrace::{AnyPool, Monitor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    sqlx::any::install_default_drivers();
    let mut settings = PoolSettings::default()
        .service("orders")
        .url("sqlite::memory:")?;
    if std::env::var_os("PRODUCTION").is_some() {
        settings = settings.production();
    }
    // What the environment says counts more than what stands above.
    let settings = settings.overridden_by_env()?;
    println!("{settings}");

    // What is wrong with what the monitor reads ends the program too.
    let monitor = Monitor::from_env()?;
    let options = settings.options().monitor(&monitor);
    let pool: AnyPool = settings.connect_with(options).await?;
    println!("{}", pool.health().await);

    let answer: i64 = sqlx::query_scalar("SELECT CAST(40 + 2 AS BIGINT)")
        .fetch_one(&pool)
        .await?;
    println!("the database says {answer}");
    pool.close().await;
    Ok(())
}
