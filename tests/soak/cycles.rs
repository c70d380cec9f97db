//! Checkouts without end: eight tasks, four connections, cuts at random polls.

use std::time::{Duration, Instant};

use leaktrace::Config;

use crate::stage::{Stage, cut, ours_with};
use crate::support::Db;
use crate::{Random, figures, set};

const TASKS: u64 = 8;
const PLACES: u32 = 4;
/// Short, because many cuts count more than each of their places.
const DELAY: Duration = Duration::from_millis(1);

/// Cut at the latest at this poll: about as many as a cycle has.
fn polls(db: Db) -> u64 {
    match db {
        Db::Postgres => 12,
        Db::MySql => 8,
        Db::Sqlite | Db::Any => 3,
    }
}

/// How many cycles. A server has to be asked about most cuts, and MariaDB over a connection more.
fn cycles(db: Db) -> u64 {
    set("LEAKTRACE_SOAK_CYCLES").unwrap_or(match db {
        Db::Postgres => 2_000,
        Db::MySql => 1_600,
        Db::Sqlite => 100_000,
        Db::Any => 8_000,
    })
}

macro_rules! cycle {
    ($test:ident, $db:ident, $sqlx:ty) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let Some(mut stage) = Stage::set_behind(Db::$db, DELAY).await else {
                return;
            };
            let config = Config::default().wait(Duration::from_secs(30));
            let (pool, findings) = ours_with::<$sqlx>(&stage, PLACES, config).await;
            let cycles = cycles(Db::$db);
            let start = Instant::now();
            let tasks: Vec<_> = (0..TASKS)
                .map(|task| {
                    let pool = pool.clone();
                    tokio::spawn(async move {
                        let mut random = Random::new(task);
                        let mut cuts = 0;
                        for _ in 0..cycles / TASKS {
                            let polls = random.below(polls(Db::$db)) as usize + 1;
                            // Half of them are cut with a connection in their hands. The others in
                            // their acquire too; sqlx then drops the connection and opens another.
                            let done = if random.below(2) == 0 {
                                let mut conn = pool.acquire().await.expect("a connection");
                                let cycle = async {
                                    let mut tx = conn.begin().await?;
                                    sqlx::query("SELECT id FROM t").fetch_all(&mut *tx).await?;
                                    tx.rollback().await
                                };
                                cut(cycle, polls).await
                            } else {
                                let cycle = async {
                                    let mut tx = pool.begin().await?;
                                    sqlx::query("SELECT id FROM t").fetch_all(&mut *tx).await?;
                                    tx.rollback().await
                                };
                                cut(cycle, polls * 2).await
                            };
                            match done {
                                Some(done) => done.expect("an uncut cycle ends well"),
                                None => cuts += 1,
                            }
                        }
                        cuts
                    })
                })
                .collect();
            let mut cuts = 0_u64;
            for task in tasks {
                cuts += task.await.expect("nothing panics");
            }
            let took = start.elapsed();
            assert!(cuts > cycles / 20, "only {cuts} of {cycles} were cut");
            leaktrace::assert_no_leaks!(pool);
            let status = pool.status();
            assert_eq!(
                (status.held, status.returning, status.waiting),
                (0, 0, 0),
                "{status:?}"
            );
            assert_eq!(status.orphaned, 0);
            assert!(pool.size() <= PLACES && pool.num_idle() <= PLACES as usize);
            assert!(pool.monitor().holders().is_empty() && pool.monitor().waiters().is_empty());
            let mut all = Vec::new();
            for _ in 0..PLACES {
                all.push(pool.acquire().await.expect("no permit is lost"));
            }
            drop(all);
            leaktrace::assert_no_leaks!(pool);
            assert!(next_borrower_is_clean!(pool, stage));
            assert!(findings.is_empty(), "{:?}", findings.all());
            figures(
                "cycles",
                Db::$db,
                &format!("{cycles} cycles, {cuts} cut, in {} s", took.as_secs()),
            );
        }
    };
}

cycle!(
    many_cycles_with_random_cuts_end_clean_on_postgres,
    Postgres,
    sqlx::Postgres
);
cycle!(
    many_cycles_with_random_cuts_end_clean_on_mariadb,
    MySql,
    sqlx::MySql
);
cycle!(
    many_cycles_with_random_cuts_end_clean_on_sqlite,
    Sqlite,
    sqlx::Sqlite
);
cycle!(
    many_cycles_with_random_cuts_end_clean_on_any,
    Any,
    sqlx::Any
);
