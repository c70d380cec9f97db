//! `testing::rolled_back`: what a test writes is never there afterwards, whatever becomes of the test.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::get;
use futures::FutureExt;
use leaktrace::testing::{RolledBack, rolled_back};
use leaktrace::{
    Config, Finding, HolderKind, Kind, Monitor, Pool, PoolOptions, SqlitePool, Transaction,
};
use sqlx::Error;
use tower::ServiceExt;

use crate::ground::PATIENCE;
use crate::support::{Capture, Db, Observer, TestDb, database, eventually};

const INSERT: &str = "INSERT INTO orders VALUES (1)";
const COUNT: &str = "SELECT count(*) FROM orders";

macro_rules! on_each_database {
    ($($module:ident: $db:ident, $sqlx:ty;)*) => {
        $(mod $module {
            use super::*;

            type Db0 = $sqlx;

            /// A pool on a fresh database with an empty table.
            async fn stage() -> Option<(TestDb, Observer, Pool<Db0>)> {
                let test = database(Db::$db).await?;
                let mut observer = Observer::watch(&test).await;
                observer.execute("CREATE TABLE orders (id integer)").await;
                let monitor = Monitor::new(Config::default());
                let options = PoolOptions::new().monitor(&monitor).max_connections(2);
                let pool = options.connect(&test.url).await.expect("a pool");
                Some((test, observer, pool))
            }

            /// Writes a row, and sees it.
            async fn write(tx: &mut RolledBack<Db0>) -> Result<(), Error> {
                sqlx::query(INSERT).execute(&mut **tx).await?;
                let seen: i64 = sqlx::query_scalar(COUNT).fetch_one(&mut **tx).await?;
                assert_eq!(seen, 1, "the control: it was written");
                Ok(())
            }

            /// Nothing is there, and nothing is held: a lock of a row would be as bad as the row.
            async fn nothing_is_left(observer: &mut Observer, pool: &Pool<Db0>) {
                eventually("the transaction is over", PATIENCE, async || {
                    observer.open_transactions().await == 0
                })
                .await;
                assert_eq!(observer.rows("orders").await, 0);
                leaktrace::assert_no_leaks!(pool);
            }

            #[tokio::test]
            async fn a_test_that_passes_leaves_nothing() {
                let Some((_test, mut observer, pool)) = stage().await else {
                    return;
                };
                {
                    let mut tx = rolled_back(&pool).await.expect("a transaction");
                    write(&mut tx).await.expect("a row");
                }
                nothing_is_left(&mut observer, &pool).await;

                let mut tx = rolled_back(&pool).await.expect("a transaction");
                write(&mut tx).await.expect("a row");
                tx.rollback().await.expect("a rollback");
                assert_eq!(observer.open_transactions().await, 0, "not waited for");
                nothing_is_left(&mut observer, &pool).await;
            }

            #[tokio::test]
            async fn a_test_that_returns_an_error_leaves_nothing() {
                let Some((_test, mut observer, pool)) = stage().await else {
                    return;
                };
                let test = async {
                    let mut tx = rolled_back(&pool).await?;
                    write(&mut tx).await?;
                    sqlx::query("SELECT nonsense FROM orders")
                        .execute(&mut *tx)
                        .await?;
                    Ok::<_, Error>(())
                };
                test.await.expect_err("the error of the statement");
                nothing_is_left(&mut observer, &pool).await;
            }

            #[tokio::test]
            async fn a_test_that_panics_leaves_nothing() {
                let Some((_test, mut observer, pool)) = stage().await else {
                    return;
                };
                let test = async {
                    let mut tx = rolled_back(&pool).await.expect("a transaction");
                    write(&mut tx).await.expect("a row");
                    std::panic::resume_unwind(Box::new("the test fails"))
                };
                let panicked = std::panic::AssertUnwindSafe(test).catch_unwind().await;
                panicked.expect_err("its panic");
                nothing_is_left(&mut observer, &pool).await;
            }

            #[tokio::test]
            async fn a_test_that_forgets_it_has_written_nothing() {
                let Some((_test, mut observer, pool)) = stage().await else {
                    return;
                };
                let mut tx = rolled_back(&pool).await.expect("a transaction");
                write(&mut tx).await.expect("a row");
                std::mem::forget(tx);
                assert_eq!(observer.rows("orders").await, 0);
            }

            #[tokio::test]
            async fn code_that_commits_its_own_transaction_commits_a_savepoint() {
                let Some((_test, mut observer, pool)) = stage().await else {
                    return;
                };
                async fn save(tx: &mut Transaction<'_, Db0>) -> Result<(), Error> {
                    let mut inner = tx.begin().await?;
                    sqlx::query(INSERT).execute(&mut *inner).await?;
                    inner.commit().await
                }
                {
                    let mut tx = rolled_back(&pool).await.expect("a transaction");
                    save(&mut tx).await.expect("saved");
                    let seen: i64 = sqlx::query_scalar(COUNT)
                        .fetch_one(&mut *tx)
                        .await
                        .expect("a count");
                    assert_eq!(seen, 1);
                }
                nothing_is_left(&mut observer, &pool).await;
            }

            /// The twin: the same with an ordinary transaction.
            #[tokio::test]
            async fn an_ordinary_transaction_with_a_commit_leaves_its_row() {
                let Some((_test, mut observer, pool)) = stage().await else {
                    return;
                };
                let mut tx = pool.begin().await.expect("a transaction");
                sqlx::query(INSERT).execute(&mut *tx).await.expect("a row");
                tx.commit().await.expect("a commit");
                assert_eq!(observer.rows("orders").await, 1);
            }
        })*
    };
}

on_each_database! {
    postgres: Postgres, sqlx::Postgres;
    mysql: MySql, sqlx::MySql;
    sqlite: Sqlite, sqlx::Sqlite;
    any: Any, sqlx::Any;
}

/// A transaction that a request writes in and drops is a loss; this one is the purpose.
#[tokio::test]
async fn its_rollback_is_no_loss_of_writes_and_its_lines_are_those_of_the_test() {
    let test = crate::support::db::sqlite_database().await;
    let monitor = Monitor::new(Config::default().report_interval(Duration::ZERO));
    let said = Capture::new();
    let sink = said.clone();
    monitor.add_sink(move |finding: &Finding| sink.push(finding.to_string()));
    let options = leaktrace::SqlitePoolOptions::new().monitor(&monitor);
    let pool = options.connect(&test.url).await.expect("a pool");
    sqlx::query("CREATE TABLE orders (id integer)")
        .execute(&pool)
        .await
        .expect("a table");
    let service = Router::new()
        .route("/purpose", get(on_purpose))
        .route("/loss", get(a_loss))
        .layer(monitor.layer())
        .with_state(pool.clone());
    // The loss, which is the twin, comes second: when it is said, the first would have been.
    for path in ["/purpose", "/loss"] {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = service.clone().oneshot(request).await.expect("an answer");
        let body = axum::body::to_bytes(answer.into_body(), 1_000).await;
        body.expect("its body");
        leaktrace::assert_no_leaks!(pool);
    }
    eventually("the loss is said", PATIENCE, async || {
        said.all().iter().any(|text| text.contains("GET /loss"))
    })
    .await;
    let said = said.all();
    assert!(said[0].contains(Kind::LostWrites.as_str()), "{said:?}");
    assert_eq!(said.len(), 1, "{said:?}");
}

async fn on_purpose(State(pool): State<SqlitePool>) -> &'static str {
    let mut tx = rolled_back(&pool).await.expect("a transaction");
    sqlx::query(INSERT).execute(&mut *tx).await.expect("a row");
    // A statement of before may be on its way back.
    let mut holders = pool.holders().into_iter();
    let holder = holders.find(|holder| holder.kind == HolderKind::Transaction);
    let holder = holder.expect("the transaction");
    for line in [holder.acquired_by, holder.last_used_by] {
        let line = line.expect("a line").to_string();
        assert!(line.contains("tests/assertions/rolled_back.rs"), "{line}");
    }
    "done"
}

async fn a_loss(State(pool): State<SqlitePool>) -> &'static str {
    let mut tx = pool.begin().await.expect("a transaction");
    sqlx::query(INSERT).execute(&mut *tx).await.expect("a row");
    "done"
}
