//! Posts.

use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};

use super::user::UserAuth;
use super::{Error, Result};
use crate::db::SqlitePool;

mod comment;

pub(super) fn router() -> Router {
    Router::new()
        .route("/v1/post", get(get_posts).post(create_post))
        .merge(comment::router())
}

#[derive(Deserialize)]
struct CreatePostRequest {
    auth: UserAuth,
    content: String,
}

#[derive(Serialize)]
struct Post {
    post_id: i64,
    username: String,
    content: String,
}

async fn create_post(
    db: Extension<SqlitePool>,
    Json(req): Json<CreatePostRequest>,
) -> Result<Json<Post>> {
    if req.content.is_empty() {
        return Err(Error::Unprocessable("a post needs words".into()));
    }
    let user_id = req.auth.verify(&*db).await?;
    let post = sqlx::query_as!(
        Post,
        r#"
            INSERT INTO post (user_id, content) VALUES (?1, ?2)
            RETURNING
                post_id AS "post_id!",
                (SELECT username FROM user WHERE user_id = ?1) AS "username!",
                content AS "content!"
        "#,
        user_id,
        req.content
    )
    .fetch_one(&*db)
    .await?;
    Ok(Json(post))
}

async fn get_posts(db: Extension<SqlitePool>) -> Result<Json<Vec<Post>>> {
    let posts = sqlx::query_as!(
        Post,
        r#"
            SELECT post_id AS "post_id!", username, content
            FROM post INNER JOIN user USING (user_id)
            ORDER BY post_id DESC
        "#
    )
    .fetch_all(&*db)
    .await?;
    Ok(Json(posts))
}
