//! Comments belong to a post. The application is asked over a real socket here.

use serde_json::{Value, json};

use super::super::http;
use crate::db::{SqlitePool, all_back};
use crate::support::{Db, ran_on};

#[sqlx::test(
    migrations = "tests/adoption/social/migrations",
    fixtures("users", "posts", "comments")
)]
async fn comments_are_written_and_listed(
    db: sqlx::SqlitePool,
) -> Result<(), Box<dyn std::error::Error>> {
    let db = SqlitePool::from(db);
    ran_on(Db::Sqlite);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1/post/1/comment", listener.local_addr()?);
    let server = tokio::spawn(http::serve(listener, db.clone()));

    let bob = json!({ "username": "bob", "token": "hammer" });
    let written = reqwest::Client::new()
        .post(&url)
        .header("content-type", "application/json")
        .body(json!({ "auth": bob, "content": "told you" }).to_string())
        .send()
        .await?;
    assert_eq!(written.status(), 200);
    let written: Value = serde_json::from_str(&written.text().await?)?;
    assert_eq!(written["username"], "bob");

    let listed: Value = serde_json::from_str(&reqwest::get(&url).await?.text().await?)?;
    let contents: Vec<_> = listed
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| &c["content"])
        .collect();
    assert_eq!(contents, ["mind the step", "too late", "told you"]);
    all_back(&db).await;
    server.abort();
    Ok(())
}
