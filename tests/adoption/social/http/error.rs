//! What can go wrong, as the client sees it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug)]
pub(super) enum Error {
    Sqlx(sqlx::Error),
    Unprocessable(String),
    Conflict(String),
    Unauthorized,
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(error)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::Sqlx(error) => {
                tracing::error!(%error, "the database refused");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal error".into())
            }
            Self::Unprocessable(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
            Self::Conflict(why) => (StatusCode::CONFLICT, why),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unknown user or token".into()),
        };
        (status, Json(json!({ "message": message }))).into_response()
    }
}
