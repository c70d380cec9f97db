//! `nested`: a request holds a connection on which no statement runs, and waits for another one.

use std::time::Duration;

use futures::StreamExt;
use leaktrace::{CauseKind, Finding, Scope, Severity};
use sqlx::{Postgres, Sqlite};

use crate::at;
use crate::bench::{Bench, PATIENCE, assert_names, cause, millis};
use crate::support::Capture;
use crate::support::db::{postgres_database, sqlite_database};

const GUILTY: [CauseKind; 2] = [CauseKind::Nested, CauseKind::Deadlock];

/// Whether it was said that somebody waits.
fn is_said(findings: &[Finding]) -> bool {
    let is_it = |finding: &Finding| finding.severity == Severity::Warn;
    findings.iter().any(is_it)
}

/// Until that is said: on a busy machine it may take a while.
async fn until_said(findings: &Capture<Finding>) {
    let said = |all: &[Finding]| is_said(all).then_some(());
    findings.wait_for("somebody waits", PATIENCE, said).await;
}

#[tokio::test]
async fn both_lines_and_the_request_are_named() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let patience = Duration::from_secs(4);
    let pool = bench.open_pool::<Sqlite>(&db, 2, patience).await;
    // Long enough for `waiting`, too short to be overdue.
    let other = pool.labeled("other").threshold(PATIENCE);
    let other = other.acquire().await.expect("free");
    let request = Scope::new("POST /orders").run(async {
        let mut outer = pool.begin().await?;
        sqlx::query("SELECT 1").execute(&mut *outer).await?;
        let inner = pool.acquire().await?;
        drop(inner);
        outer.commit().await
    });
    let (request, waiting) = tokio::join!(request, bench.waiting());
    assert!(matches!(request, Err(sqlx::Error::PoolTimedOut)));
    for finding in [waiting, bench.timed_out().await] {
        let nested = cause(&finding, CauseKind::Nested).unwrap_or_else(|| panic!("{finding}"));
        assert_eq!(nested.share, 1);
        let taken = at!("let mut outer = pool.begin()");
        assert_names(
            &nested.detail,
            &[
                "POST /orders holds one of pool \"orders\"",
                &format!("taken at {taken}"),
                &format!("last used at {}", at!("execute(&mut *outer)")),
                &format!(
                    "waits for another of pool \"orders\" at {}",
                    at!("let inner")
                ),
            ],
        );
        let rest = cause(&finding, CauseKind::Saturated);
        assert_eq!(rest.map(|rest| rest.share), Some(1), "{finding}");
    }
    drop(other);
}

#[tokio::test]
async fn a_statement_on_the_pool_under_an_open_transaction_is_one_too() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let pool = bench
        .open_pool::<Postgres>(&db, 1, Duration::from_secs(3))
        .await;
    let task = tokio::spawn(async move {
        let _outer = pool.begin().await?;
        sqlx::query("SELECT 1").execute(&pool).await
    });
    assert!(task.await.expect("no panic").is_err());
    // Alone on a pool of one it is a whole deadlock.
    let (_, deadlock) = bench.cause(CauseKind::Deadlock).await;
    assert_names(
        &deadlock.detail,
        &[
            "a task holds one",
            &format!("taken at {}", at!("let _outer = pool.begin()")),
            "waits for another of pool \"orders\" at a statement on the pool itself",
        ],
    );
}

#[tokio::test]
async fn two_statements_of_one_request_at_once_are_none() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let pool = bench.open_pool::<Postgres>(&db, 1, PATIENCE).await;
    let slow = || sqlx::query("SELECT pg_sleep(3)").execute(&pool);
    let both = async { tokio::join!(slow(), slow()) };
    let (left, right) = Scope::new("GET /board").run(both).await;
    left.and(right).expect("in time");
    let finding = bench.waiting().await;
    assert!(cause(&finding, CauseKind::Saturated).is_some(), "{finding}");
    bench.never_said(&GUILTY);
}

#[tokio::test]
async fn a_savepoint_and_a_connection_used_twice_need_no_second_one() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 1, PATIENCE).await;
    let request = async {
        let mut outer = pool.begin().await?;
        let mut savepoint = outer.begin().await?;
        sqlx::query("SELECT 1").execute(&mut *savepoint).await?;
        savepoint.commit().await?;
        for _ in 0..2 {
            sqlx::query("SELECT 1").execute(&mut *outer).await?;
        }
        outer.commit().await
    };
    Scope::new("POST /orders")
        .run(request)
        .await
        .expect("in time");
    assert!(bench.findings.is_empty());
}

#[tokio::test]
async fn a_checkout_that_another_branch_took_after_the_wait_began_is_none() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 2, PATIENCE);
    let mut held = vec![
        pool.acquire().await.expect("free"),
        pool.acquire().await.expect("free"),
    ];
    let request = Scope::new("GET /board").run({
        let (pool, findings) = (pool.clone(), bench.findings.clone());
        async move {
            let branch = async || {
                let conn = pool.acquire().await.expect("in time");
                tokio::time::sleep(millis(600)).await;
                until_said(&findings).await;
                drop(conn);
            };
            tokio::join!(branch(), branch());
        }
    });
    let request = tokio::spawn(request);
    bench.until_waiting(2).await;
    held.pop();
    request.await.expect("no panic");
    assert!(bench.count(Severity::Warn) > 0);
    bench.never_said(&GUILTY);
}

/// What runs on a raw loan is not seen; one that was made after the wait began is used beside it.
#[tokio::test]
async fn a_raw_loan_that_another_branch_made_after_the_wait_began_is_none() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 1, PATIENCE);
    let request = Scope::new("GET /board").run({
        let (pool, monitor) = (pool.clone(), bench.monitor.clone());
        let findings = bench.findings.clone();
        async move {
            let mut conn = pool.acquire().await.expect("free");
            let works = async {
                while monitor.waiters().is_empty() {
                    tokio::time::sleep(millis(1)).await;
                }
                let raw: &mut sqlx::SqliteConnection = &mut conn;
                tokio::time::sleep(millis(600)).await;
                until_said(&findings).await;
                sqlx::query("SELECT 1").execute(raw).await.expect("works");
                drop(conn);
            };
            let (_, second) = tokio::join!(works, pool.acquire());
            drop(second.expect("in time"));
        }
    });
    tokio::spawn(request).await.expect("no panic");
    assert!(bench.count(Severity::Warn) > 0);
    bench.never_said(&GUILTY);
}

/// Between two rows nothing runs. The reader is not the branch that waits.
#[tokio::test]
async fn rows_that_another_branch_goes_on_reading_are_none() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 2, PATIENCE);
    let _other = pool.acquire().await.expect("free");
    let request = Scope::new("GET /export").run({
        let (pool, findings) = (pool.clone(), bench.findings.clone());
        async move {
            let mut conn = pool.acquire().await.expect("free");
            let reads = async {
                let many =
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000)
                            SELECT i FROM n";
                let mut rows = sqlx::query(many).fetch(&mut *conn);
                let mut read = 0;
                while read < 40 || !is_said(&findings.all()) {
                    let row = rows.next().await.expect("there are more");
                    row.expect("a row");
                    read += 1;
                    tokio::time::sleep(millis(20)).await;
                }
                drop(rows);
                drop(conn);
            };
            let (_, second) = tokio::join!(reads, pool.acquire());
            drop(second.expect("in time"));
        }
    });
    tokio::spawn(request).await.expect("no panic");
    assert!(bench.count(Severity::Warn) > 0);
    bench.never_said(&GUILTY);
}
