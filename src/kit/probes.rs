//! Handlers for an orchestrator's probes, for axum.
//!
//! Responsible for status codes and bodies. Not responsible for what is healthy: see `health`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use sqlx::Database;

use crate::Pool;

/// Answers 200 while this process serves requests at all. It asks no database: a restart of the
/// service does not bring a database back, and a thousand restarts at once keep it down.
pub async fn liveness() -> Response {
    answer(StatusCode::OK, r#"{"ok":true}"#.to_string())
}

/// Answers 200 with [`Health`](super::Health) as JSON when the database answers in time, else 503.
///
/// The body names lines of code and what the server said: not for the public.
///
/// ```
/// use axum::Router;
/// use axum::routing::get;
/// use leaktrace::kit::{liveness, readiness};
///
/// # #[cfg(feature = "sqlite")]
/// fn probes(pool: leaktrace::SqlitePool) -> Router {
///     Router::new()
///         .route("/live", get(liveness))
///         .route("/ready", get(readiness::<sqlx::Sqlite>))
///         .with_state(pool)
/// }
/// ```
pub async fn readiness<DB: Database>(State(pool): State<Pool<DB>>) -> Response {
    let health = pool.health().await;
    let code = match health.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = serde_json::to_string(&health).unwrap_or_else(|error| error.to_string());
    answer(code, body)
}

fn answer(code: StatusCode, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (code, headers, body).into_response()
}
