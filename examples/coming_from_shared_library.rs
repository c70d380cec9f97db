//! A db-pool library of twelve services: one table of sizes, one prefix for each service, one budget.
//!
//! Reads `DATABASE_URL`, and `ORDERS_DB_…` for the service `orders`.

use leaktrace::PgPool;
use leaktrace::kit::{Budget, Limit, PoolSettings, Share, Traffic};

const SERVICES: [(&str, Traffic); 3] = [
    ("orders", Traffic::High),
    ("invoices", Traffic::Medium),
    ("admin", Traffic::Low),
];

/// What every service of the company calls.
async fn pool(service: &str) -> Result<PgPool, Box<dyn std::error::Error>> {
    let settings = PoolSettings::default().service(service);
    let settings = settings.traffic_from(&SERVICES)?;
    let settings = settings.overridden_by(|name| std::env::var(name).ok())?;
    Ok(settings.connect().await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let orders = pool("orders").await?;
    println!("{}", orders.health().await);
    let share = |(service, traffic): (&str, Traffic)| {
        Share::new(service, 2, traffic.sizing().max + traffic.sizing().overflow)
    };
    let budget = Budget::of(&SERVICES.map(share));
    println!("{}", budget.against(Limit::of_postgres(&orders).await?)?);
    Ok(())
}
