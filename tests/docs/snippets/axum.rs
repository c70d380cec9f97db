//! The Rust of docs/axum.md.

use std::time::Duration;

use ::axum::Router;
use ::axum::extract::State;
use ::axum::http::StatusCode;
use ::axum::routing::get;
use leaktrace::{Monitor, PgPool, Scope};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

async fn order() {}

fn layers(monitor: &Monitor, pool: PgPool, time: Duration) {
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, time);
    let app = Router::new()
        .route("/orders/{id}", get(order))
        .layer(CatchPanicLayer::new())
        .layer(timeout)
        .layer(monitor.layer())
        .layer(TraceLayer::new_for_http())
        .with_state(pool);
    let _: Router = app;
}

async fn ship(State(pool): State<PgPool>) -> StatusCode {
    tokio::spawn(Scope::new("mail").run(async move {
        let mut conn = pool.acquire().await?;
        sqlx::query("UPDATE orders SET mailed = true")
            .execute(&mut *conn)
            .await
    }));
    StatusCode::ACCEPTED
}

/// As `axum_sqlx_tx::Tx`, which is no dependency of this crate.
struct Tx;

impl Tx {
    fn setup(_pool: sqlx::PgPool) -> ((), ()) {
        ((), ())
    }
}

fn beside(pool: &PgPool) {
    let (state, layer) = Tx::setup(pool.as_sqlx().clone());
    let _ = (state, layer);
}
