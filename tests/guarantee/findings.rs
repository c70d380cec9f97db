//! What is said about how a connection came back: the matrix of what was used, what was done, and
//! how it ended. Each cell's kinds stand here; no cell says more.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use leaktrace::{Config, Kind, Monitor, StrictError};
use sqlx::{MySql, Postgres, Sqlite};
use tower::ServiceExt;

use crate::stage::{LONG, Stage, cut, ours_with};
use crate::support::{Capture, Db, eventually};

/// What a request does with its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Wrote,
    Read,
    LockedARow,
    Failed,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Commit,
    Drop,
    Error,
    Panic,
    Cancel,
    Discard,
}

/// Through what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// `&pool`.
    Pool,
    /// `&mut *tx`.
    Guard,
    /// A raw loan of the transaction's connection.
    Loan,
}

const ENDS: [End; 6] = [
    End::Commit,
    End::Drop,
    End::Error,
    End::Panic,
    End::Cancel,
    End::Discard,
];

/// What is said: `L` is `lost_writes`, `-` nothing. A statement on the pool has no transaction; its
/// commit is to await it, its drop and `discard()` are to drop it in flight.
///
/// Dropped and answered with success, writes are lost. PostgreSQL answers the commit of an aborted
/// transaction with `Ok`; on a raw loan the failure was not seen, and nobody asks. It takes a row
/// lock by a write to the row's header, and counts that as one; where the statement was seen, it only
/// read.
type Row = (By, Did, [&'static str; 6]);
const POSTGRES: [Row; 12] = [
    //                      commit drop  `?`  panic cancel discard()
    (By::Pool, Did::Wrote, ["-", "-", "-", "-", "-", "-"]),
    (By::Pool, Did::Read, ["-", "-", "-", "-", "-", "-"]),
    (By::Pool, Did::LockedARow, ["-", "-", "-", "-", "-", "-"]),
    (By::Pool, Did::Failed, ["-", "-", "-", "-", "-", "-"]),
    (By::Guard, Did::Wrote, ["-", "L", "-", "-", "-", "-"]),
    (By::Guard, Did::Read, ["-", "-", "-", "-", "-", "-"]),
    (By::Guard, Did::LockedARow, ["-", "-", "-", "-", "-", "-"]),
    (By::Guard, Did::Failed, ["L", "-", "-", "-", "-", "-"]),
    (By::Loan, Did::Wrote, ["-", "L", "-", "-", "-", "-"]),
    (By::Loan, Did::Read, ["-", "-", "-", "-", "-", "-"]),
    (By::Loan, Did::LockedARow, ["-", "L", "-", "-", "-", "-"]),
    (By::Loan, Did::Failed, ["-", "-", "-", "-", "-", "-"]),
];

/// A failed statement does not abort a transaction here, and a row lock is no write.
const OTHERS: [Row; 12] = [
    //                      commit drop  `?`  panic cancel discard()
    (By::Pool, Did::Wrote, ["-", "-", "-", "-", "-", "-"]),
    (By::Pool, Did::Read, ["-", "-", "-", "-", "-", "-"]),
    (By::Pool, Did::LockedARow, ["-", "-", "-", "-", "-", "-"]),
    (By::Pool, Did::Failed, ["-", "-", "-", "-", "-", "-"]),
    (By::Guard, Did::Wrote, ["-", "L", "-", "-", "-", "-"]),
    (By::Guard, Did::Read, ["-", "-", "-", "-", "-", "-"]),
    (By::Guard, Did::LockedARow, ["-", "-", "-", "-", "-", "-"]),
    (By::Guard, Did::Failed, ["-", "-", "-", "-", "-", "-"]),
    (By::Loan, Did::Wrote, ["-", "L", "-", "-", "-", "-"]),
    (By::Loan, Did::Read, ["-", "-", "-", "-", "-", "-"]),
    (By::Loan, Did::LockedARow, ["-", "-", "-", "-", "-", "-"]),
    (By::Loan, Did::Failed, ["-", "-", "-", "-", "-", "-"]),
];

/// The statement of a cell failed as it must, or did not; then the request goes on by `?`.
fn as_it_must(did: Did, done: Result<(), sqlx::Error>) {
    assert_eq!(done.is_err(), did == Did::Failed, "{did:?}: {done:?}");
}

/// Runs the body as a request behind the layer, in a task of its own: `true` is answered with 200,
/// `false` with 500.
pub(crate) fn request<F>(monitor: &Monitor, body: F) -> tokio::task::JoinHandle<()>
where
    F: Future<Output = bool> + Send + 'static,
{
    let body = Arc::new(Mutex::new(Some(body)));
    let handler = move || {
        let body = body.lock().expect("not poisoned").take().expect("one call");
        async move {
            if body.await {
                StatusCode::OK
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    };
    let app = Router::new()
        .route("/", get(handler))
        .layer(monitor.layer());
    tokio::spawn(async move {
        let request = Request::get("/").body(Body::empty()).expect("a request");
        let Ok(response) = app.oneshot(request).await;
        // As a server does: an answer that nobody reads is a request that was cut.
        let _ = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    })
}

macro_rules! matrix {
    ($sqlx:ty, $rows:expr, $stage:ident, $lock:literal) => {{
        let config = Config::default();
        let (pool, findings) = ours_with::<$sqlx>(&$stage, 2, config).await;
        $stage.observer.execute("INSERT INTO t VALUES (0)").await;
        let cells = $rows.into_iter().flat_map(|(by, did, said)| {
            ENDS.into_iter().zip(said).map(move |cell| (by, did, cell))
        });
        for (by, did, (end, said)) in cells {
            let inner = pool.clone();
            let hang = std::sync::Arc::new(tokio::sync::Notify::new());
            let hangs = hang.clone();
            let work = async move {
                let sql = match did {
                    Did::Wrote => "INSERT INTO t VALUES (1)",
                    Did::Read => "SELECT id FROM t",
                    Did::LockedARow => $lock,
                    Did::Failed => "SELECT nothing FROM nowhere",
                };
                let statement = sqlx::query(sql);
                let mut tx = None;
                match by {
                    By::Pool if matches!(end, End::Drop | End::Discard) => {
                        drop(cut(statement.execute(&inner), 3).await);
                    }
                    By::Pool if end == End::Cancel => {
                        // Its request goes away while it is in flight.
                        let mut flight = Box::pin(statement.execute(&inner));
                        let _ = futures::poll!(&mut flight);
                        hangs.notify_one();
                        std::future::pending::<()>().await;
                        drop(flight);
                    }
                    By::Pool => as_it_must(did, statement.execute(&inner).await.map(drop)),
                    By::Guard => {
                        let tx = tx.insert(inner.begin().await?);
                        as_it_must(did, statement.execute(&mut **tx).await.map(drop));
                    }
                    By::Loan => {
                        let tx = tx.insert(inner.begin().await?);
                        as_it_must(did, statement.execute(&mut ***tx).await.map(drop));
                    }
                }
                match end {
                    End::Commit => match tx {
                        Some(tx) => tx.commit().await?,
                        None => {}
                    },
                    End::Drop => drop(tx),
                    End::Error => Err(sqlx::Error::RowNotFound)?,
                    End::Panic => panic!("on purpose, in a request"),
                    End::Cancel => {
                        hangs.notify_one();
                        std::future::pending::<()>().await;
                    }
                    End::Discard => {
                        if let Some(tx) = tx {
                            tx.discard();
                        }
                    }
                }
                Ok::<(), sqlx::Error>(())
            };
            let task = request(pool.monitor(), async move { work.await.is_ok() });
            if end == End::Cancel {
                hang.notified().await;
                task.abort();
            }
            let _ = task.await;
            leaktrace::assert_no_leaks!(pool);
            // A finding that must not come has no moment: the next request's end is one.
            request(pool.monitor(), async { true })
                .await
                .expect("a request");
            let expected = match said {
                "L" => vec![Kind::LostWrites],
                _ => vec![],
            };
            see(&findings, expected, &format!("{by:?}, {did:?}, {end:?}")).await;
        }
    }};
}

/// Waits for the kinds that are expected, and sees no other.
async fn see(findings: &Capture<leaktrace::Finding>, expected: Vec<Kind>, what: &str) {
    eventually(what, LONG, async || {
        let said: Vec<Kind> = findings.all().iter().map(|finding| finding.kind).collect();
        (said.len() >= expected.len()).then_some(()).ok_or(said)
    })
    .await;
    for finding in findings.take() {
        assert!(expected.contains(&finding.kind), "{what}: {finding}");
        let by = finding.holders[0].acquired_by.as_ref().expect("its line");
        assert!(by.file().ends_with("findings.rs"), "{by}");
    }
}

#[tokio::test]
async fn each_cell_of_the_matrix_says_what_it_must_on_postgres() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    matrix!(Postgres, POSTGRES, stage, "SELECT id FROM t FOR UPDATE");
}

#[tokio::test]
async fn each_cell_of_the_matrix_says_what_it_must_on_mariadb() {
    let Some(mut stage) = Stage::set(Db::MySql).await else {
        return;
    };
    matrix!(MySql, OTHERS, stage, "SELECT id FROM t FOR UPDATE");
}

#[tokio::test]
async fn each_cell_of_the_matrix_says_what_it_must_on_sqlite() {
    let Some(mut stage) = Stage::set(Db::Sqlite).await else {
        return;
    };
    // SQLite has no row locks.
    matrix!(Sqlite, OTHERS, stage, "SELECT id FROM t");
}

#[tokio::test]
async fn in_strict_mode_a_commit_that_would_save_nothing_is_an_error_also_after_a_raw_loan() {
    let Some(stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let (pool, _) = ours_with::<Postgres>(&stage, 1, Config::default().strict(true)).await;
    for raw in [false, true] {
        let mut tx = pool.begin().await.expect("a transaction");
        let sql = "SELECT nothing FROM nowhere";
        let failed = if raw {
            sqlx::query(sql).execute(&mut **tx).await
        } else {
            sqlx::query(sql).execute(&mut *tx).await
        };
        assert!(failed.is_err());
        let Err(sqlx::Error::AnyDriverError(error)) = tx.commit().await else {
            panic!("nothing was saved");
        };
        assert_eq!(error.downcast_ref(), Some(&StrictError::NothingSaved));
        let mut tx = pool.begin().await.expect("a transaction");
        sqlx::query("SELECT 1")
            .execute(&mut **tx)
            .await
            .expect("an answer");
        tx.commit().await.expect("the twin is committed");
    }
}

/// A dirty connection is the fault of who left it, and said with their line, not with the victim's.
macro_rules! dirty_by_text {
    ($db:ty, $stage:ident) => {{
        let (pool, findings) = ours_with::<$db>(&$stage, 1, Config::default()).await;
        let mut conn = pool.acquire().await.expect("a connection");
        sqlx::raw_sql("BEGIN")
            .execute(&mut *conn)
            .await
            .expect("it begins");
        drop(conn);
        assert!(next_borrower_is_clean!(pool, $stage));
        see(&findings, vec![Kind::DirtyReturn], "a BEGIN left open").await;
        // The twin: the same text, ended by text.
        let mut conn = pool.acquire().await.expect("a connection");
        sqlx::raw_sql("BEGIN")
            .execute(&mut *conn)
            .await
            .expect("it begins");
        sqlx::raw_sql("COMMIT")
            .execute(&mut *conn)
            .await
            .expect("it commits");
        drop(conn);
        leaktrace::assert_no_leaks!(pool);
        assert!(findings.is_empty(), "{:?}", findings.all());
    }};
}

/// What comes back by sqlx's own path is settled too, and said without a holder.
macro_rules! dirty_by_the_raw_pool {
    ($db:ty, $stage:ident) => {{
        let (pool, findings) = ours_with::<$db>(&$stage, 1, Config::default()).await;
        let mut conn = pool.as_sqlx().acquire().await.expect("a connection");
        sqlx::raw_sql("BEGIN")
            .execute(&mut *conn)
            .await
            .expect("it begins");
        drop(conn);
        assert!(next_borrower_is_clean!(pool, $stage));
        eventually("a dirty return", LONG, async || findings.len() == 1).await;
        let finding = findings.take().remove(0);
        assert_eq!(finding.kind, Kind::DirtyReturn);
        assert!(
            finding.headline.contains("findings.rs"),
            "{}",
            finding.headline
        );
        drop(pool.as_sqlx().acquire().await.expect("a connection"));
        assert!(next_borrower_is_clean!(pool, $stage));
        assert!(findings.is_empty(), "{:?}", findings.all());
    }};
}

/// A commit that was cut in flight.
macro_rules! unknown_commit {
    ($db:ty, $stage:ident) => {{
        let (pool, findings) = ours_with::<$db>(&$stage, 1, Config::default()).await;
        let tx = pool.begin().await.expect("a transaction");
        assert!(cut(tx.commit(), 1).await.is_none());
        see(&findings, vec![Kind::CommitUnknown], "a cut commit").await;
        // The twins: one that is awaited, one that was never polled.
        let tx = pool.begin().await.expect("a transaction");
        tx.commit().await.expect("it commits");
        let tx = pool.begin().await.expect("a transaction");
        drop(tx.commit());
        leaktrace::assert_no_leaks!(pool);
        assert!(findings.is_empty(), "{:?}", findings.all());
    }};
}

on_each! {
    a_transaction_left_open_by_text_is_said_with_the_line_of_who_left_it [Postgres, MySql, Sqlite, Any] dirty_by_text;
    a_dirty_connection_of_the_raw_pool_is_healed_and_said [Postgres, MySql, Sqlite, Any] dirty_by_the_raw_pool;
    a_cut_commit_is_said_to_be_unknown [Postgres, MySql] unknown_commit;
}
