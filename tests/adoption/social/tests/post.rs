//! Posts are written by users and read by everybody, newest first.

use serde_json::json;

use super::super::http;
use super::send;
use crate::db::{SqlitePool, all_back};
use crate::support::{Db, ran_on};

#[sqlx::test(migrations = "tests/adoption/social/migrations", fixtures("users"))]
async fn a_user_posts(db: sqlx::SqlitePool) {
    let db = SqlitePool::from(db);
    ran_on(Db::Sqlite);
    let app = http::app(db.clone());
    let alice = json!({ "username": "alice", "token": "rabbit" });
    let (status, post) = send(
        &app,
        "POST",
        "/v1/post",
        Some(json!({ "auth": alice, "content": "curious" })),
    )
    .await;
    let expected = json!({ "post_id": 1, "username": "alice", "content": "curious" });
    assert_eq!((status, post), (200, expected));

    let stranger = json!({ "username": "alice", "token": "wrong" });
    let refused = json!({ "auth": stranger, "content": "let me in" });
    assert_eq!(send(&app, "POST", "/v1/post", Some(refused)).await.0, 401);
    all_back(&db).await;
}

#[sqlx::test(
    migrations = "tests/adoption/social/migrations",
    fixtures("users", "posts")
)]
async fn posts_are_listed_newest_first(db: sqlx::SqlitePool) {
    let db = SqlitePool::from(db);
    ran_on(Db::Sqlite);
    let (status, posts) = send(&http::app(db.clone()), "GET", "/v1/post", None).await;
    let ids: Vec<_> = posts
        .as_array()
        .into_iter()
        .flatten()
        .map(|post| &post["post_id"])
        .collect();
    assert_eq!((status, ids), (200, vec![&json!(2), &json!(1)]));
    all_back(&db).await;
}
