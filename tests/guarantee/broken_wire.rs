//! A connection on which client and server no longer agree is of no use to the next borrower.
//!
//! sqlx's MySQL driver sends the statement, finds that it has one bind too many, and leaves the
//! server's answer unread: the next user of the connection waits for ever.

use std::time::Duration;

use sqlx::{Error, MySql};

use crate::stage::{Stage, ours, raw};
use crate::support::Db;

/// Far above a round trip.
const FOR_EVER: Duration = Duration::from_secs(3);

#[tokio::test]
async fn raw_sqlx_hangs_the_next_user_of_the_connection() {
    let Some(stage) = Stage::set(Db::MySql).await else {
        return;
    };
    let pool = raw::<MySql>(&stage, 1).await;
    let mut conn = pool.acquire().await.expect("a connection");
    let failed = sqlx::query("SELECT 1").bind(1).execute(&mut *conn).await;
    assert!(matches!(failed, Err(Error::Protocol(_))), "{failed:?}");
    let next = sqlx::query("SELECT 2").execute(&mut *conn);
    let next = tokio::time::timeout(FOR_EVER, next).await;
    assert!(next.is_err(), "sqlx has changed: {next:?}");
    // Its own return would hang as well.
    drop(conn.detach());
}

#[tokio::test]
async fn here_it_is_closed_and_the_next_one_gets_another() {
    let Some(stage) = Stage::set(Db::MySql).await else {
        return;
    };
    let (pool, _monitor) = ours::<MySql>(&stage, 1).await;
    let failed = sqlx::query("SELECT 1").bind(1).execute(&pool).await;
    assert!(matches!(failed, Err(Error::Protocol(_))), "{failed:?}");
    sqlx::query("SELECT 2")
        .execute(&pool)
        .await
        .expect("another connection");
    leaktrace::assert_no_leaks!(pool);
}
