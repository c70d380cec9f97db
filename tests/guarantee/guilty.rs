//! Whose fault it is: each kind of finding about a bad end names the line that took the connection
//! and the line that last used it. Never a line of the next borrower.
//!
//! No macros here: a line inside of one is the line where it is used.

use std::time::Duration;

use leaktrace::{Config, Finding, Kind, Location};
use sqlx::{Postgres, Sqlite};

use crate::findings::request;
use crate::stage::{LONG, Stage, cut, ours, ours_with, ours_with_limit};
use crate::support::{Capture, Db};

async fn said(findings: &Capture<Finding>, kind: Kind) -> Finding {
    findings
        .wait_for(kind.as_str(), LONG, |all| {
            all.iter().find(|finding| finding.kind == kind).cloned()
        })
        .await
}

#[track_caller]
fn is_at(site: Option<&Location>, line: u32) {
    let site = site.expect("its line");
    assert!(site.file().ends_with("guilty.rs"), "{site}");
    assert_eq!(site.line(), line, "{site}");
}

#[tokio::test]
async fn a_dirty_return_names_who_began_by_text() {
    let mut stage = Stage::set(Db::Sqlite).await.expect("it is always there");
    let (pool, findings) = ours::<Sqlite>(&stage, 1).await;
    let taken = line!() + 1;
    let mut conn = pool.acquire().await.expect("a connection");
    let begin = sqlx::raw_sql("BEGIN");
    let used = line!() + 1;
    begin.execute(&mut *conn).await.expect("it begins");
    drop(conn);
    assert!(next_borrower_is_clean!(pool, stage));
    let finding = said(&findings, Kind::DirtyReturn).await;
    is_at(finding.holders[0].acquired_by.as_ref(), taken);
    is_at(finding.holders[0].last_used_by.as_ref(), used);
}

#[tokio::test]
async fn lost_writes_name_who_dropped_them() {
    let stage = Stage::set(Db::Sqlite).await.expect("it is always there");
    let (pool, findings) = ours::<Sqlite>(&stage, 1).await;
    let inner = pool.clone();
    let taken = line!() + 2;
    let body = async move {
        let mut tx = inner.begin().await.expect("a transaction");
        let insert = sqlx::query("INSERT INTO t VALUES (1)");
        insert.execute(&mut *tx).await.expect("a row");
        true
    };
    let used = line!() - 3;
    request(pool.monitor(), body).await.expect("a request");
    let finding = said(&findings, Kind::LostWrites).await;
    is_at(finding.holders[0].acquired_by.as_ref(), taken);
    is_at(finding.holders[0].last_used_by.as_ref(), used);
}

/// The commit of an aborted transaction.
#[tokio::test]
async fn lost_writes_name_who_committed_what_had_failed() {
    let Some(stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let (pool, findings) = ours::<Postgres>(&stage, 1).await;
    let taken = line!() + 1;
    let mut tx = pool.begin().await.expect("a transaction");
    let wrong = sqlx::query("SELECT nothing FROM nowhere");
    let used = line!() + 1;
    let failed = wrong.execute(&mut *tx).await;
    assert!(failed.is_err());
    tx.commit().await.expect("what the server says");
    let finding = said(&findings, Kind::LostWrites).await;
    is_at(finding.holders[0].acquired_by.as_ref(), taken);
    is_at(finding.holders[0].last_used_by.as_ref(), used);
}

#[tokio::test]
async fn an_unknown_commit_names_who_was_cut_in_it() {
    let Some(stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let (pool, findings) = ours::<Postgres>(&stage, 1).await;
    let taken = line!() + 1;
    let mut tx = pool.begin().await.expect("a transaction");
    let insert = sqlx::query("INSERT INTO t VALUES (1)");
    let used = line!() + 1;
    insert.execute(&mut *tx).await.expect("a row");
    assert!(cut(tx.commit(), 1).await.is_none());
    let finding = said(&findings, Kind::CommitUnknown).await;
    is_at(finding.holders[0].acquired_by.as_ref(), taken);
    is_at(finding.holders[0].last_used_by.as_ref(), used);
}

#[tokio::test]
async fn a_stuck_return_names_who_left_its_statement_and_how_old_it_is() {
    let Some(stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let limit = Duration::from_millis(200);
    let (pool, findings) = ours_with_limit::<Postgres>(&stage, 1, limit).await;
    let taken = line!() + 1;
    let mut conn = pool.acquire().await.expect("a connection");
    let slow = sqlx::raw_sql("SELECT pg_sleep(60)");
    let used = line!() + 1;
    assert!(cut(slow.execute(&mut *conn), 1).await.is_none());
    drop(conn);
    let status = pool.status();
    assert_eq!((status.held, status.returning), (0, 1), "{status:?}");
    let holder = pool.holders().remove(0);
    assert_eq!(holder.phase, leaktrace::Phase::Returning);
    assert!(holder.returning_for.is_some());
    assert_eq!(holder.last_sql.as_deref(), Some("SELECT pg_sleep(?)"));
    let report = pool.monitor().report().to_string();
    assert!(report.contains("returning for "), "{report}");
    let finding = said(&findings, Kind::StuckReturn).await;
    let holder = &finding.holders[0];
    is_at(holder.acquired_by.as_ref(), taken);
    is_at(holder.last_used_by.as_ref(), used);
    assert!(holder.returning_for >= Some(limit), "{holder:?}");
    assert!(holder.held_for < LONG, "not the time of the return");
    let text = finding.to_string();
    assert!(text.contains("returning for "), "{text}");
    assert!(text.contains("SELECT pg_sleep(?)"), "{text}");
    drop(pool.acquire().await.expect("the place comes back"));
    leaktrace::assert_no_leaks!(pool);
}

/// A transaction on a connection that is kept: its writes are lost though nothing came back.
macro_rules! lost_on_a_kept_connection {
    ($db:ty, $stage:ident) => {{
        let config = Config::default();
        let (pool, findings) = ours_with::<$db>(&$stage, 1, config).await;
        for (discarded, success) in [(false, true), (true, true), (false, false)] {
            let inner = pool.clone();
            let body = async move {
                let mut conn = inner.acquire().await.expect("a connection");
                let mut tx = conn.begin().await.expect("a transaction");
                sqlx::query("INSERT INTO t VALUES (1)")
                    .execute(&mut *tx)
                    .await
                    .expect("a row");
                match discarded {
                    true => tx.discard(),
                    false => drop(tx),
                }
                sqlx::query("SELECT 1")
                    .execute(&mut *conn)
                    .await
                    .expect("it goes on");
                success
            };
            request(pool.monitor(), body).await.expect("a request");
            leaktrace::assert_no_leaks!(pool);
            assert_eq!($stage.rows().await, 0, "rolled back in any case");
            if success && !discarded {
                said(&findings, Kind::LostWrites).await;
            } else {
                request(pool.monitor(), async { true })
                    .await
                    .expect("a request");
            }
            let kinds: Vec<Kind> = findings.take().iter().map(|one| one.kind).collect();
            let expected = if success && !discarded { 1 } else { 0 };
            assert_eq!(kinds.len(), expected, "{discarded} {success} {kinds:?}");
        }
    }};
}

on_each! {
    writes_dropped_on_a_kept_connection_are_lost [Postgres, MySql, Sqlite, Any] lost_on_a_kept_connection;
}
