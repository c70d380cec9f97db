//! Who may write: registration and the check of a token.

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use sqlx::SqliteExecutor;

use super::{Error, Result};
use crate::db::SqlitePool;

pub(super) fn router() -> Router {
    Router::new().route("/v1/user", post(create_user).delete(delete_user))
}

/// Sent with everything that writes. (The example that this follows hashes a password here.)
#[derive(Deserialize)]
pub(super) struct UserAuth {
    username: String,
    token: String,
}

impl UserAuth {
    /// The user's id, if the token is right.
    pub(super) async fn verify(&self, db: impl SqliteExecutor<'_>) -> Result<i64> {
        sqlx::query_scalar!(
            r#"SELECT user_id AS "user_id!" FROM user WHERE username = ? AND token = ?"#,
            self.username,
            self.token
        )
        .fetch_optional(db)
        .await?
        .ok_or(Error::Unauthorized)
    }
}

async fn create_user(db: Extension<SqlitePool>, Json(req): Json<UserAuth>) -> Result<StatusCode> {
    if req.username.is_empty() {
        return Err(Error::Unprocessable("a user needs a name".into()));
    }
    sqlx::query!(
        "INSERT INTO user (username, token) VALUES (?, ?)",
        req.username,
        req.token
    )
    .execute(&*db)
    .await
    .map_err(|e| match e {
        sqlx::Error::Database(dbe) if dbe.is_unique_violation() => {
            Error::Conflict("username taken".into())
        }
        _ => e.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

/// Two statements that belong together, and a helper in between.
async fn delete_user(db: Extension<SqlitePool>, Json(req): Json<UserAuth>) -> Result<StatusCode> {
    let mut tx = db.begin().await?;
    let user_id = req.verify(&mut *tx).await?;
    sqlx::query!("DELETE FROM post WHERE user_id = ?", user_id)
        .execute(&mut *tx)
        .await?;
    sqlx::query!("DELETE FROM user WHERE user_id = ?", user_id)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
