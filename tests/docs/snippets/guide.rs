//! The blocks of README.md and docs/guide.md.

use super::Result;

mod adopt {
    use super::Result;

    async fn order() {}

    #[rustfmt::skip] // The page imports in one line what stands in one folder.
    fn watched(sqlx_pool: sqlx::PgPool) -> Result<axum::Router> {
        use axum::{Router, routing::get};
        use leaktrace::{Monitor, PgPool}; // was: use sqlx::PgPool;

        let monitor = Monitor::from_env()?; // reads DEBUG_DB_LEAKS and its companions
        let pool: PgPool = monitor.watch("orders", sqlx_pool); // any finished sqlx::Pool
        let app = Router::new()
            .route("/orders/{id}", get(order))
            .layer(monitor.layer()) // reports name the request
            .with_state(pool);
        Ok(app)
    }
}

mod global {
    use super::Result;

    async fn connect(url: &str) -> Result<()> {
        use leaktrace::{Monitor, PgPool};

        let pool = PgPool::connect(url).await?;
        let layer = Monitor::global().layer();
        drop((pool, layer));
        Ok(())
    }
}

mod options {
    use leaktrace::{Monitor, PgPool};

    use super::Result;

    async fn connect(monitor: &Monitor, url: &str) -> Result<PgPool> {
        use leaktrace::PgPoolOptions;

        let pool = PgPoolOptions::new()
            .name("orders")
            .monitor(monitor)
            .max_connections(10)
            .connect(url)
            .await?;
        Ok(pool)
    }
}

mod running {
    use std::time::Duration;

    use leaktrace::{Detail, Monitor};

    fn now(monitor: &Monitor) {
        monitor.set_detail(Detail::Backtrace);
        monitor.set_threshold(Duration::from_secs(2));
        println!("{}", monitor.report());
    }
}

mod labels {
    use std::time::Duration;

    use leaktrace::PgPool;

    fn exceptions(pool: &PgPool) {
        let exports = pool
            .labeled("csv export")
            .threshold(Duration::from_secs(300));
        let listener = pool.labeled("listener").unreported();
        drop((exports, listener));
    }
}

mod scopes {
    use leaktrace::{PgPool, Scope};

    use super::Result;

    async fn send_invoices(_pool: PgPool) -> Result<()> {
        Ok(())
    }

    async fn job(pool: PgPool) -> Result<()> {
        let job = Scope::new("nightly invoices");
        job.run(send_invoices(pool)).await
    }

    async fn spawned(pool: PgPool) {
        if let Some(request) = Scope::current() {
            tokio::spawn(async move { request.run(send_invoices(pool)).await });
        }
    }
}

mod sinks {
    use leaktrace::{Finding, Monitor};

    fn to_a_file(monitor: &Monitor) {
        monitor.add_sink(|finding: &Finding| {
            if let Ok(json) = serde_json::to_string(finding) {
                println!("{json}");
            }
        });
    }
}

mod paging {
    use leaktrace::Monitor;
    use tokio::sync::mpsc;

    fn to_whoever_is_on_duty(monitor: &Monitor, messages: mpsc::Sender<String>) {
        use leaktrace::{Finding, FindingSink, Severity};

        /// Hands what is bad to whoever is on duty.
        struct Pager {
            messages: mpsc::Sender<String>,
        }

        impl FindingSink for Pager {
            fn finding(&self, finding: &Finding) {
                if finding.severity == Severity::Error {
                    // Full or closed: the log has it.
                    let _ = self.messages.try_send(finding.headline.clone());
                }
            }
        }

        monitor.add_sink(Pager { messages });
    }
}

mod internal {
    use axum::extract::State;
    use axum::routing::get;
    use axum::{Json, Router};
    use leaktrace::Monitor;

    #[rustfmt::skip] // As the page has it.
    async fn routes(monitor: Monitor, port: tokio::net::TcpListener) -> std::io::Result<()> {
        let internal = Router::new()
            .route("/leaks", get(async |State(monitor): State<Monitor>| monitor.report().to_string()))
            .route("/leaks.json", get(async |State(monitor): State<Monitor>| Json(monitor.report())))
            .with_state(monitor);
        axum::serve(port, internal).await
    }
}

mod terminal {
    fn log() {
        use tracing_subscriber::fmt::format::debug_fn;

        tracing_subscriber::fmt()
            .fmt_fields(debug_fn(|out, field, value| match field.name() {
                "message" | "report" => write!(out, "{value:?}"),
                _ => Ok(()),
            }))
            .init();
    }
}

mod testing {
    use sqlx::PgPool;

    use super::Result;

    async fn ship(_pool: &leaktrace::PgPool, _id: i64) -> Result<()> {
        Ok(())
    }

    async fn test(sqlx_pool: PgPool) -> Result<()> {
        use leaktrace::{Config, Detail, Monitor};

        let monitor = Monitor::new(Config::default().detail(Detail::Backtrace));
        let pool = monitor.watch("orders", sqlx_pool);
        ship(&pool, 1).await?;
        leaktrace::assert_no_leaks!(pool);
        Ok(())
    }

    async fn rest_of_a_block(pool: leaktrace::PgPool) -> Result<()> {
        let _check = pool.leak_check();
        ship(&pool, 1).await?;
        Ok(())
    }
}

mod transactions {
    use leaktrace::PgPool;

    use super::Result;

    async fn ship(pool: &PgPool, id: i64) -> Result<()> {
        pool.transaction(async |tx| {
            sqlx::query("UPDATE orders SET state = 'shipped' WHERE id = $1")
                .bind(id)
                .execute(&mut **tx)
                .await
        })
        .await?;
        Ok(())
    }
}

mod shutdown {
    use std::time::Duration;

    use leaktrace::PgPool;

    async fn close(pool: &PgPool) {
        if let Err(leaks) = pool.close_within(Duration::from_secs(5)).await {
            tracing::error!("{leaks}");
        }
    }
}

async fn a_test_that_writes(pool: leaktrace::PgPool) -> Result<()> {
    let mut tx = leaktrace::testing::rolled_back(&pool).await?;
    sqlx::query("INSERT INTO orders (id) VALUES (1)")
        .execute(&mut *tx)
        .await?;
    Ok(())
}
