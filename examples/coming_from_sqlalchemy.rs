//! A SQLAlchemy session service: `create_engine(pool_size=…, max_overflow=…)`, `with Session() as s`,
//! `pool.status()`.
//!
//! Reads `DATABASE_URL`. The arguments keep their names, in a file of any format that serde reads.

use leaktrace::PgPool;
use leaktrace::kit::PoolSettings;

const ENGINE: &str = r#"{
    "service": "invoices", "pool_size": 5, "max_overflow": 10, "pool_timeout": 30,
    "pool_recycle": 1800, "pool_pre_ping": true
}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings: PoolSettings = serde_json::from_str(ENGINE)?;
    let settings = settings.overridden_by(|name| std::env::var(name).ok())?;
    let pool: PgPool = settings.connect().await?;

    let mut session = pool.begin().await?; // with Session() as session:
    let sum = sqlx::query_scalar("SELECT sum(n) FROM generate_series(1, $1) AS n");
    let sum: i64 = sum.bind(4_i32).fetch_one(&mut *session).await?;
    println!("{sum}; {}", pool.words()); // pool.status()
    session.commit().await?; // session.commit()
    pool.close().await; // engine.dispose()
    Ok(())
}
