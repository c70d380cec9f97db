//! A small application in the style of sqlx's example `axum-social-with-tests`: users, posts and
//! comments over HTTP, checked queries, an extension that holds the pool, and its own tests with
//! `#[sqlx::test]` and fixtures.
//!
//! It is written for sqlx. The whole difference to the same application on sqlx is:
//!
//! ```text
//! http/*.rs    - use sqlx::SqlitePool;
//!              + use leaktrace::SqlitePool;
//! tests/*.rs   + let db = SqlitePool::from(db);    the one line that adopts the pool of a test
//! ```
//! In this suite the import reads `crate::db::SqlitePool`, so that `db.rs` may say whose it is.
//!
//! Queries are checked offline (`.sqlx/`). After a change of one: apply `migrations/` to a new file,
//! then `DATABASE_URL=sqlite:…/file.db SQLX_OFFLINE_DIR="$PWD/.sqlx" cargo check --test adoption`.

mod http;
mod tests;
