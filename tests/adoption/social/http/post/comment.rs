//! Comments on posts.

use axum::extract::Path;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};

use super::super::Result;
use super::super::user::UserAuth;
use crate::db::SqlitePool;

pub(super) fn router() -> Router {
    Router::new().route(
        "/v1/post/{post_id}/comment",
        get(get_comments).post(create_comment),
    )
}

#[derive(Deserialize)]
struct CreateCommentRequest {
    auth: UserAuth,
    content: String,
}

#[derive(Serialize)]
struct Comment {
    comment_id: i64,
    username: String,
    content: String,
}

/// Writes and reads back on one connection of its own.
async fn create_comment(
    db: Extension<SqlitePool>,
    Path(post_id): Path<i64>,
    Json(req): Json<CreateCommentRequest>,
) -> Result<Json<Comment>> {
    let mut conn = db.acquire().await?;
    let user_id = req.auth.verify(&mut *conn).await?;
    let comment_id = sqlx::query!(
        "INSERT INTO comment (post_id, user_id, content) VALUES (?, ?, ?)",
        post_id,
        user_id,
        req.content
    )
    .execute(&mut *conn)
    .await?
    .last_insert_rowid();
    let comment = sqlx::query_as!(
        Comment,
        r#"
            SELECT comment_id AS "comment_id!", username, content
            FROM comment INNER JOIN user USING (user_id)
            WHERE comment_id = ?
        "#,
        comment_id
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(Json(comment))
}

async fn get_comments(
    db: Extension<SqlitePool>,
    Path(post_id): Path<i64>,
) -> Result<Json<Vec<Comment>>> {
    let comments = sqlx::query_as!(
        Comment,
        r#"
            SELECT comment_id AS "comment_id!", username, content
            FROM comment INNER JOIN user USING (user_id)
            WHERE post_id = ?
            ORDER BY comment_id
        "#,
        post_id
    )
    .fetch_all(&*db)
    .await?;
    Ok(Json(comments))
}
