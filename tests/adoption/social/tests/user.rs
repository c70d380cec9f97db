//! Users register once, and go with everything they wrote.

use serde_json::json;

use super::super::http;
use super::send;
use crate::db::{SqlitePool, all_back};
use crate::support::{Db, ran_on};

#[sqlx::test(migrations = "tests/adoption/social/migrations")]
async fn a_user_registers_once(db: sqlx::SqlitePool) {
    let db = SqlitePool::from(db);
    ran_on(Db::Sqlite);
    let app = http::app(db.clone());
    let alice = json!({ "username": "alice", "token": "rabbit" });
    assert_eq!(
        send(&app, "POST", "/v1/user", Some(alice.clone())).await.0,
        204
    );
    let (status, said) = send(&app, "POST", "/v1/user", Some(alice)).await;
    assert_eq!(
        (status, said["message"].as_str()),
        (409, Some("username taken"))
    );
    let nobody = json!({ "username": "", "token": "" });
    assert_eq!(send(&app, "POST", "/v1/user", Some(nobody)).await.0, 422);
    all_back(&db).await;
}

#[sqlx::test(
    migrations = "tests/adoption/social/migrations",
    fixtures("users", "posts", "comments")
)]
async fn a_user_who_leaves_takes_their_posts_along(db: sqlx::SqlitePool) {
    let db = SqlitePool::from(db);
    ran_on(Db::Sqlite);
    let app = http::app(db.clone());
    let stranger = json!({ "username": "alice", "token": "wrong" });
    assert_eq!(
        send(&app, "DELETE", "/v1/user", Some(stranger)).await.0,
        401
    );
    let alice = json!({ "username": "alice", "token": "rabbit" });
    assert_eq!(send(&app, "DELETE", "/v1/user", Some(alice)).await.0, 204);
    let (_, posts) = send(&app, "GET", "/v1/post", None).await;
    assert_eq!(
        posts,
        json!([{ "post_id": 2, "username": "bob", "content": "we can" }])
    );
    all_back(&db).await;
}
