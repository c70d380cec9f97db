//! A connection on which client and server no longer agree is of no use to the next borrower.
//!
//! sqlx's MySQL driver sends the statement, finds that it has one bind too many, and leaves the
//! server's answer unread: the next user of the connection waits for ever. Its PostgreSQL driver does
//! not count the answer to a COPY: when one is cut, the next borrower reads an answer that is not its
//! own, and the one after it the next.

use std::time::Duration;

use sqlx::{Error, MySql, Postgres};

use crate::stage::{Stage, cut, ours, raw};
use crate::support::Db;

/// Far above a round trip, also on a busy machine.
const FOR_EVER: Duration = Duration::from_secs(10);

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

/// Cuts the end of a COPY at each poll; answers after how many cuts the next borrower did not get
/// the answer to its question.
macro_rules! cut_copies {
    ($pool:expr, $rows:expr) => {{
        let (mut cuts, mut wrong) = (0, 0);
        for polls in 1..20 {
            let mut conn = $pool.acquire().await.expect("a connection");
            let mut copy = conn
                .copy_in_raw("COPY t FROM STDIN")
                .await
                .expect("it begins");
            copy.send($rows).await.expect("sent");
            let done = cut(copy.finish(), polls).await.is_some();
            drop(conn);
            let question = sqlx::query_scalar("SELECT 42::int8").fetch_one(&$pool);
            let answer: Result<Result<i64, Error>, _> =
                tokio::time::timeout(FOR_EVER, question).await;
            if done {
                break;
            }
            cuts += 1;
            if !matches!(answer, Ok(Ok(42))) {
                wrong += 1;
                break;
            }
        }
        assert!(cuts > 0, "nothing was cut");
        wrong
    }};
}

#[tokio::test]
async fn raw_sqlx_answers_the_question_after_a_cut_copy_with_something_else() {
    let Some(stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let pool = raw::<Postgres>(&stage, 1).await;
    assert!(cut_copies!(pool, &b"8\n"[..]) > 0, "sqlx has changed");
}

#[tokio::test]
async fn here_a_connection_with_a_cut_copy_is_closed() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let (pool, findings) = ours::<Postgres>(&stage, 1).await;
    assert_eq!(cut_copies!(pool, &b"8\n"[..]), 0);
    // By sqlx's own path too.
    let raw = pool.as_sqlx().clone();
    assert_eq!(cut_copies!(raw, &b"8\n"[..]), 0);
    assert!(next_borrower_is_clean!(pool, stage));
    leaktrace::assert_no_leaks!(pool);
    assert!(findings.is_empty(), "{:?}", findings.all());
}

/// The twin: one that is not cut, also in a transaction that it aborts.
#[tokio::test]
async fn a_connection_with_a_copy_that_ended_is_kept() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let (pool, _) = ours::<Postgres>(&stage, 1).await;
    let opened = stage.proxy.as_ref().expect("a network").accepted();
    for rows in [&b"8\n"[..], b"not a number\n"] {
        let mut conn = pool.acquire().await.expect("a connection");
        sqlx::raw_sql("BEGIN")
            .execute(&mut *conn)
            .await
            .expect("it begins");
        let mut copy = conn
            .copy_in_raw("COPY t FROM STDIN")
            .await
            .expect("it begins");
        copy.send(rows).await.expect("sent");
        let done = copy.finish().await;
        assert_eq!(done.is_ok(), rows == b"8\n", "{done:?}");
        drop(conn);
        assert!(next_borrower_is_clean!(pool, stage));
        assert_eq!(pool.size(), 1);
        leaktrace::assert_no_leaks!(pool);
    }
    let opened_since = stage.proxy.as_ref().expect("a network").accepted() - opened;
    assert_eq!(opened_since, 0, "healed, not closed");
}
