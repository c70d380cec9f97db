//! User code: axum handlers and extractors, served over real HTTP on the loopback.

use axum::extract::{FromRef, FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::TryStreamExt;
use sqlx::{Executor, Postgres, Row};

use crate::db::{PgPool, PgPoolOptions, PoolConnection, Transaction, all_back};
use crate::ground;

/// What every service writes: any error is a 500.
struct Internal(sqlx::Error);

impl<E: Into<sqlx::Error>> From<E> for Internal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Internal {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}

/// The extractor of axum's own sqlx example: a connection per request.
struct Connection(PoolConnection<Postgres>);

impl<S> FromRequestParts<S> for Connection
where
    PgPool: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Internal;

    async fn from_request_parts(_parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let pool = PgPool::from_ref(state);
        Ok(Self(pool.acquire().await?))
    }
}

/// A transaction per request, rolled back unless the handler commits.
struct Tx(Transaction<'static, Postgres>);

impl FromRequestParts<App> for Tx {
    type Rejection = Internal;

    async fn from_request_parts(_parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        Ok(Self(app.pool.begin().await?))
    }
}

#[derive(Clone, FromRef)]
struct App {
    pool: PgPool,
}

async fn list(State(pool): State<PgPool>) -> Result<Json<Vec<String>>, Internal> {
    let bodies = sqlx::query_scalar("SELECT body FROM notes ORDER BY id")
        .fetch_all(&pool)
        .await?;
    Ok(Json(bodies))
}

async fn streamed(State(pool): State<PgPool>) -> Response {
    let rows = pool.fetch("SELECT body FROM notes ORDER BY id");
    let lines = rows.map_ok(|row| row.get::<String, _>(0) + "\n");
    axum::body::Body::from_stream(lines).into_response()
}

async fn count(Connection(mut conn): Connection) -> Result<String, Internal> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(&mut *conn)
        .await?;
    Ok(count.to_string())
}

async fn add(Tx(mut tx): Tx, Path(body): Path<String>) -> Result<StatusCode, Internal> {
    sqlx::query("INSERT INTO notes (body) VALUES ($1)")
        .bind(&body)
        .execute(&mut *tx)
        .await?;
    if body == "nothing" {
        return Ok(StatusCode::UNPROCESSABLE_ENTITY);
    }
    tx.commit().await?;
    Ok(StatusCode::CREATED)
}

async fn broken(State(App { pool }): State<App>) -> Result<(), Internal> {
    let mut tx = pool.begin().await?;
    sqlx::query("INSERT INTO notes (body) VALUES (NULL)")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Serves until the test ends and answers where.
async fn serve(pool: PgPool) -> String {
    let app = Router::new()
        .route("/notes", get(list))
        .route("/notes/streamed", get(streamed))
        .route("/notes/count", get(count))
        .route("/notes/{body}", post(add))
        .route("/broken", post(broken))
        .with_state(App { pool });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

#[tokio::test]
async fn handlers_and_extractors_answer_over_http() -> Result<(), Box<dyn std::error::Error>> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    let url = serve(pool.clone()).await;
    let client = reqwest::Client::new();

    let post = async |path: &str| client.post(format!("{url}{path}")).send().await;
    assert_eq!(post("/notes/one").await?.status(), 201);
    assert_eq!(post("/notes/two").await?.status(), 201);
    assert_eq!(post("/notes/nothing").await?.status(), 422);
    let broken = post("/broken").await?;
    assert_eq!(broken.status(), 500);
    assert!(broken.text().await?.contains("not-null"));

    let get = async |path: &str| -> reqwest::Result<String> {
        client
            .get(format!("{url}{path}"))
            .send()
            .await?
            .text()
            .await
    };
    assert_eq!(get("/notes").await?, r#"["one","two"]"#);
    assert_eq!(get("/notes/streamed").await?, "one\ntwo\n");
    assert_eq!(get("/notes/count").await?, "2");
    all_back(&pool).await;
    Ok(())
}
