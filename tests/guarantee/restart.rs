//! A server that is really restarted under load. Only one that the test has started itself: a server
//! of everybody would take the other tests with it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leaktrace::{CauseKind, Config, Finding, Kind, Monitor};

use crate::stage::LONG;
use crate::support::servers::Servers;
use crate::support::{Capture, Db, eventually, ran_on};

const PLACES: u32 = 4;
const TASKS: usize = 8;

#[derive(Default)]
struct Load {
    over: AtomicBool,
    /// Raised when the server is back: from then on nobody may be failed.
    back: AtomicBool,
    next: AtomicI64,
    told: Mutex<Vec<i64>>,
    failed: Mutex<Vec<String>>,
    done_since: AtomicU64,
}

macro_rules! restarted {
    ($test:ident, $db:ident, $sqlx:ty, $variable:literal, $insert:literal) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let Some(servers) = tokio::task::block_in_place(|| Servers::start(Db::$db)) else {
                return;
            };
            ran_on(Db::$db);
            let monitor = Monitor::new(Config::default().report_interval(Duration::ZERO));
            let findings = Capture::new();
            let sink = findings.clone();
            monitor.add_sink(move |finding: &Finding| sink.push(finding.clone()));
            let pool: leaktrace::Pool<$sqlx> = leaktrace::PoolOptions::new()
                .monitor(&monitor)
                .name("orders")
                .max_connections(PLACES)
                .acquire_timeout(LONG * 3)
                .connect(&servers.url($variable))
                .await
                .expect("our pool");
            sqlx::raw_sql("CREATE TABLE t (id BIGINT NOT NULL)")
                .execute(&pool)
                .await
                .expect("a table");
            let load = Arc::<Load>::default();
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| {
                    let (pool, load) = (pool.clone(), Arc::clone(&load));
                    tokio::spawn(async move {
                        while !load.over.load(Ordering::SeqCst) {
                            let id = load.next.fetch_add(1, Ordering::SeqCst);
                            let was_back = load.back.load(Ordering::SeqCst);
                            let work = async {
                                let mut tx = pool.begin().await?;
                                sqlx::query($insert).bind(id).execute(&mut *tx).await?;
                                sqlx::query($insert).bind(id).execute(&mut *tx).await?;
                                tx.commit().await
                            };
                            match work.await {
                                Ok(()) => {
                                    load.told.lock().expect("no panic").push(id);
                                    load.done_since.fetch_add(1, Ordering::SeqCst);
                                }
                                Err(error) => {
                                    assert!(!was_back, "failed after it was back: {error}");
                                    let error = error.to_string();
                                    load.failed.lock().expect("no panic").push(error);
                                    // It has lost one; the next waits until the server is back.
                                    while !load.back.load(Ordering::SeqCst) {
                                        tokio::time::sleep(Duration::from_millis(10)).await;
                                    }
                                }
                            }
                        }
                    })
                })
                .collect();
            let some_more = async || {
                load.done_since.store(0, Ordering::SeqCst);
                eventually("work is done", LONG * 2, async || {
                    load.done_since.load(Ordering::SeqCst) > 50
                })
                .await;
            };
            some_more().await;
            assert!(tokio::task::block_in_place(|| servers.run("restart")));
            load.back.store(true, Ordering::SeqCst);
            some_more().await;
            load.over.store(true, Ordering::SeqCst);
            for task in tasks {
                task.await.expect("nobody is failed after it is back");
            }

            let failed = load.failed.lock().expect("no panic").clone();
            assert!(failed.len() <= TASKS, "one in flight for each: {failed:?}");
            assert!(!failed.is_empty(), "it was restarted under load");
            leaktrace::assert_no_leaks!(pool);
            let status = pool.status();
            assert_eq!(
                (
                    status.held,
                    status.returning,
                    status.waiting,
                    status.orphaned
                ),
                (0, 0, 0, 0),
                "{status:?}"
            );
            let mut all = Vec::new();
            for _ in 0..PLACES {
                all.push(pool.acquire().await.expect("no permit is lost"));
            }
            drop(all);
            leaktrace::assert_no_leaks!(pool);
            let rows: Vec<(i64, i64)> = sqlx::query_as("SELECT id, count(*) FROM t GROUP BY id")
                .fetch_all(&pool)
                .await
                .expect("the rows");
            assert!(rows.iter().all(|(_, count)| *count == 2), "no halves");
            let there: std::collections::HashSet<i64> = rows.iter().map(|(id, _)| *id).collect();
            let told = load.told.lock().expect("no panic").clone();
            assert!(told.iter().all(|id| there.contains(id)), "none is lost");
            let provoked = |finding: &Finding| {
                finding.kind == Kind::Exhausted
                    && finding.causes.iter().all(|cause| {
                        matches!(
                            cause.kind,
                            CauseKind::Connecting
                                | CauseKind::Returning
                                | CauseKind::Saturated
                                | CauseKind::Stalled
                        )
                    })
            };
            let said = findings.all();
            assert!(said.iter().all(provoked), "{said:?}");
            pool.close().await;
        }
    };
}

restarted!(
    a_restarted_postgres_takes_no_more_than_the_statements_in_flight,
    Postgres,
    sqlx::Postgres,
    "LEAKTRACE_TEST_POSTGRES_URL",
    "INSERT INTO t VALUES ($1)"
);
restarted!(
    a_restarted_mariadb_takes_no_more_than_the_statements_in_flight,
    MySql,
    sqlx::MySql,
    "LEAKTRACE_TEST_MYSQL_URL",
    "INSERT INTO t VALUES (?)"
);
