//! The blocks of docs/pools.md.

use std::time::Duration;

use leaktrace::PgPool;
use leaktrace::kit::PoolSettings;

use super::Result;

async fn from_the_environment() -> Result<PgPool> {
    let settings = PoolSettings::for_service("orders")?; // ORDERS_DB_…, DB_…, DATABASE_…
    let pool: PgPool = settings.connect().await?;
    Ok(pool)
}

fn sized() -> PoolSettings {
    // 200 requests a second, each holding a connection for 40 ms, and a quarter on top: 10.
    PoolSettings::default().sized_for(200.0, Duration::from_millis(40), 0.25)
}

mod budget {
    #[test]
    fn all_services_fit_the_server() -> super::Result<()> {
        use leaktrace::kit::{Budget, Limit, Share};

        let budget = Budget::of(&[
            Share::new("orders", 6, 10), // replicas during a deployment, connections of each
            Share::new("invoices", 2, 5),
        ]);
        let used = budget.against(Limit::new(100, 3).less(5))?; // max_connections, reserved, people
        assert!(!used.is_tight(), "{used}");
        Ok(())
    }
}

fn behind_a_pooler() -> Result<PoolSettings> {
    let settings = PoolSettings::for_service("orders")?
        .prepared_statements(false)
        .statement_timeout(None); // ALTER ROLE orders SET statement_timeout = '5s'
    Ok(settings)
}

fn production() -> Result<PoolSettings> {
    let settings = PoolSettings::default()
        .production()
        .overridden_by(|name| std::env::var(name).ok())?;
    Ok(settings)
}

mod probes {
    use leaktrace::PgPool;

    fn routes(pool: PgPool) -> axum::Router {
        use axum::routing::get;
        use leaktrace::kit::{liveness, readiness};

        axum::Router::new()
            .route("/live", get(liveness)) // asks no database
            .route("/ready", get(readiness::<sqlx::Postgres>)) // 503 when it does not answer, or is stuck
            .with_state(pool)
    }
}

async fn in_a_test(pool: PgPool) -> Result<()> {
    let mut tx = leaktrace::testing::rolled_back(&pool).await?;
    sqlx::query("INSERT INTO orders (id) VALUES (1)")
        .execute(&mut *tx)
        .await?;
    Ok(())
}

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("examples/notes");

async fn migrated(pool: PgPool) -> Result<()> {
    let migrations = pool.labeled("migrations").unreported();
    let mut conn = migrations.acquire().await?;
    conn.close_on_drop();
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        .execute(&mut *conn)
        .await?;
    MIGRATOR.run(&mut *conn).await?;
    Ok(())
}

async fn tenants() -> Result<()> {
    use leaktrace::kit::TenantPool;

    let settings = PoolSettings::for_service("orders")?.tenant_variable("app.tenant");
    let orders = TenantPool::new(settings.connect().await?, "app.tenant").await?;
    let mut tx = orders.begin("acme").await?; // set_config('app.tenant', 'acme', true)
    sqlx::query("UPDATE orders SET state = 'shipped'")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

async fn replicas() -> Result<i64> {
    use leaktrace::kit::Replicated;

    let primary: PgPool = PoolSettings::for_service("orders")?.connect().await?;
    let replica: PgPool = PoolSettings::for_service("orders_replica")?
        .connect()
        .await?;
    let orders = Replicated::new(primary, replica);

    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM orders")
        .fetch_one(orders.read())
        .await?;
    sqlx::query("DELETE FROM orders")
        .execute(orders.write())
        .await?;
    Ok(count)
}
