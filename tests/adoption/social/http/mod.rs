//! The application's routes, and how it is served.

use axum::{Extension, Router};

use crate::db::SqlitePool;

mod error;
mod post;
mod user;

use error::{Error, Result};

pub(super) fn app(db: SqlitePool) -> Router {
    Router::new()
        .merge(user::router())
        .merge(post::router())
        .layer(Extension(db))
}

pub(super) async fn serve(
    listener: tokio::net::TcpListener,
    db: SqlitePool,
) -> std::io::Result<()> {
    axum::serve(listener, app(db)).await
}
