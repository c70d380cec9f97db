//! `deadlock`: every connection is held by somebody who waits for one.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, future};
use leaktrace::{Cause, CauseKind, Config, Kind, PgPool, Severity, SqlitePool};
use sqlx::{Postgres, Sqlite};
use tokio::task::JoinSet;

use crate::at;
use crate::bench::{Bench, PATIENCE, assert_names, cause, millis, quick};
use crate::support::db::{postgres_database, sqlite_database};

/// `count` tasks that hold one and, when all do, want another one.
fn hold_and_wait(pool: &SqlitePool, count: usize) -> JoinSet<Result<(), sqlx::Error>> {
    let all_hold = std::sync::Arc::new(tokio::sync::Barrier::new(count));
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let (pool, all_hold) = (pool.clone(), all_hold.clone());
        tasks.spawn(async move {
            let mut held = pool.acquire().await?;
            sqlx::query("SELECT 1").execute(&mut *held).await?;
            all_hold.wait().await;
            let _second = pool.begin().await?;
            Ok(())
        });
    }
    tasks
}

/// Runs them with this `acquire_timeout`; the deadlock must be named before it passes.
async fn found_in_time(acquire_timeout: Duration) {
    let bench = Bench::new(Config::default());
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 3, acquire_timeout).await;
    let mut tasks = hold_and_wait(&pool, 3);
    let (finding, deadlock) = bench.cause(CauseKind::Deadlock).await;
    assert_eq!(
        finding.severity,
        Severity::Warn,
        "before anybody failed: {finding}"
    );
    assert_eq!(deadlock.share, 3);
    assert!(!deadlock.detail.contains("suspected"), "{deadlock:?}");
    assert_eq!(finding.causes.len(), 1, "and nothing else: {finding}");
    assert_names(
        &deadlock.detail,
        &[
            &format!(
                "3 × a task holds one of pool \"orders\" taken at {}",
                at!("let mut held = pool.acquire().await?")
            ),
            &format!("last used at {}", at!("execute(&mut *held)")),
            &format!(
                "and waits for another of pool \"orders\" at {}",
                at!("let _second = pool.begin().await?")
            ),
        ],
    );
    let mut failed = 0;
    while let Some(done) = tasks.join_next().await {
        match done.expect("no panic") {
            Ok(()) => {}
            Err(sqlx::Error::PoolTimedOut) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failed > 0, "it was one");
    assert_eq!(bench.count(Severity::Warn), 1, "once an episode");
}

#[tokio::test]
async fn it_is_named_before_the_first_acquire_gives_up() {
    found_in_time(Duration::from_secs(4)).await;
}

#[tokio::test]
async fn it_is_named_in_time_also_with_a_short_acquire_timeout() {
    // Less than what a wait may take before it is said, by itself.
    found_in_time(millis(900)).await;
}

#[tokio::test]
async fn two_pools_taken_in_opposite_orders_are_one_deadlock() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let timeout = Duration::from_secs(6);
    let left = bench.pool::<Sqlite>(&db, 1, timeout);
    let right = bench.pool::<Sqlite>(&db, 1, timeout);
    assert_eq!((left.name(), right.name()), ("orders", "orders 2"));
    let barrier = tokio::sync::Barrier::new(2);
    let cross = async |first: SqlitePool, second: SqlitePool| {
        let _first = first.acquire().await.expect("free");
        barrier.wait().await;
        second.acquire().await.map(drop)
    };
    let there = leaktrace::Scope::new("there").run(cross(left.clone(), right.clone()));
    let back = leaktrace::Scope::new("back").run(cross(right.clone(), left.clone()));
    let both = async { tokio::join!(there, back) };
    let named = async {
        let (finding, deadlock) = bench.cause(CauseKind::Deadlock).await;
        assert_eq!(finding.severity, Severity::Warn);
        assert_names(
            &deadlock.detail,
            &[
                "there holds one of pool \"orders\" taken at",
                "and waits for another of pool \"orders 2\" at",
                "back holds one of pool \"orders 2\" taken at",
                "and waits for another of pool \"orders\" at",
            ],
        );
    };
    let ((there, back), ()) = tokio::join!(both, named);
    assert!(there.is_err() || back.is_err());
}

#[tokio::test]
async fn two_pools_taken_in_the_same_order_are_none() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let left = bench.pool::<Sqlite>(&db, 1, PATIENCE);
    let right = bench.pool::<Sqlite>(&db, 1, PATIENCE);
    let ordered = async || {
        for _ in 0..200 {
            let _first = left.acquire().await.expect("in time");
            let mut second = right.acquire().await.expect("in time");
            sqlx::query("SELECT 1")
                .execute(&mut *second)
                .await
                .expect("a row");
        }
    };
    let ordered = [(); 4].map(|()| leaktrace::Scope::new("ordered").run(ordered()));
    future::join_all(ordered).await;
    bench.never_said(&[CauseKind::Deadlock, CauseKind::Nested]);
}

#[tokio::test]
async fn readers_of_streams_that_wait_for_another_connection_are_one() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 2, Duration::from_secs(5));
    let barrier = tokio::sync::Barrier::new(2);
    let reader = async || {
        let sql = "SELECT value FROM json_each('[1,2,3]')";
        let mut rows = sqlx::query(sql).fetch(&pool);
        rows.try_next().await?.expect("a row");
        barrier.wait().await;
        sqlx::query("SELECT 2").execute(&pool).await.map(drop)
    };
    let left = leaktrace::Scope::new("left").run(reader());
    let right = leaktrace::Scope::new("right").run(reader());
    let (left, right, (finding, deadlock)) =
        tokio::join!(left, right, bench.cause(CauseKind::Deadlock));
    assert_eq!(finding.severity, Severity::Warn);
    assert_eq!(deadlock.share, 2);
    assert!(left.is_err() || right.is_err());
}

#[tokio::test]
async fn a_reader_of_a_stream_that_goes_on_reading_beside_its_wait_is_none() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 1, PATIENCE);
    leaktrace::Scope::new("reads beside its wait")
        .run(async {
            let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) SELECT i FROM n";
            let mut rows = sqlx::query(sql).fetch(&pool);
            rows.next().await.expect("a row").expect("no error");
            // For longer than a deadlock needs to be proved, and until it is said that somebody waits.
            let read = async {
                let mut tick = tokio::time::interval(millis(40));
                let mut read = 0;
                while read < 60 || bench.count(Severity::Warn) == 0 {
                    let row = rows.try_next().await.expect("no error");
                    row.expect("there are more");
                    read += 1;
                    tick.tick().await;
                }
                drop(rows);
            };
            let (_, second) = tokio::join!(read, pool.acquire());
            second.expect("in time");
        })
        .await;
    bench.waiting().await;
    bench.never_said(&[CauseKind::Deadlock, CauseKind::Nested]);
}

#[tokio::test]
async fn what_was_lent_raw_is_suspected_after_half_of_the_acquire_timeout() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    // Half of it is long beyond the 200 ms after which it is said that somebody waits.
    let pool = bench
        .open_pool::<Sqlite>(&db, 1, Duration::from_secs(8))
        .await;
    let started = Instant::now();
    let nested = async {
        let mut held = pool.acquire().await.expect("free");
        let raw: &mut sqlx::SqliteConnection = &mut held;
        sqlx::query("SELECT 1").execute(raw).await.expect("a row");
        pool.acquire().await.map(drop)
    };
    let named = async {
        let first = bench.waiting().await;
        assert!(cause(&first, CauseKind::Deadlock).is_none(), "{first}");
        let (finding, deadlock) = bench.cause(CauseKind::Deadlock).await;
        assert_eq!(finding.severity, Severity::Warn);
        assert_eq!(finding.id, first.id, "of the same exhaustion");
        assert!(started.elapsed() >= Duration::from_secs(4));
        assert_names(
            &deadlock.detail,
            &["suspected", "1 were lent as raw connections"],
        );
    };
    let (nested, ()) = tokio::join!(nested, named);
    assert!(matches!(nested, Err(sqlx::Error::PoolTimedOut)));
}

#[tokio::test]
async fn another_pool_that_is_busy_does_not_hide_it() {
    let bench = Bench::new(Config::default());
    let db = sqlite_database().await;
    let busy = bench.pool::<Sqlite>(&db, 2, PATIENCE);
    let work = tokio::spawn(async move {
        loop {
            let _ = sqlx::query("SELECT 1").execute(&busy).await;
        }
    });
    let pool = bench.pool::<Sqlite>(&db, 2, Duration::from_secs(4));
    let mut tasks = hold_and_wait(&pool, 2);
    let (finding, _) = bench.cause(CauseKind::Deadlock).await;
    assert_eq!(finding.severity, Severity::Warn);
    tasks.shutdown().await;
    work.abort();
}

#[tokio::test]
async fn at_off_a_full_pool_is_no_deadlock_and_nothing_is_said() {
    let bench = Bench::new(quick().detail(leaktrace::Detail::Off));
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 1, millis(900)).await;
    let held = pool.acquire().await.expect("free");
    assert!(pool.acquire().await.is_err());
    drop(held);
    assert!(bench.findings.is_empty(), "{:?}", bench.findings.all());
}

/// What looks like a deadlock for an instant, and never lasts.
mod innocent {
    use super::*;

    const GUILTY: [CauseKind; 2] = [CauseKind::Deadlock, CauseKind::Nested];

    async fn pg(bench: &Bench) -> Option<(crate::support::TestDb, PgPool)> {
        let db = postgres_database().await?;
        let pool = bench.open_pool::<Postgres>(&db, 10, PATIENCE).await;
        Some((db, pool))
    }

    fn config() -> Config {
        Config::default().detail(leaktrace::Detail::Backtrace)
    }

    /// Whatever is said would be a false alarm here, but for one: where other work leaves no processor,
    /// a wait of a second for a place is true, and then it is said that the pool is small.
    fn assert_silent(bench: &Bench) {
        for finding in bench.findings.all() {
            assert_eq!(finding.kind, Kind::Exhausted, "{finding}");
            let is_true =
                |cause: &Cause| matches!(cause.kind, CauseKind::Saturated | CauseKind::Returning);
            assert!(finding.causes.iter().all(is_true), "{finding}");
        }
    }

    #[tokio::test]
    async fn twenty_statements_at_once_on_a_pool_of_ten() {
        let bench = Bench::new(config());
        let Some((_db, pool)) = pg(&bench).await else {
            return;
        };
        for _ in 0..1_000 {
            let round = leaktrace::Scope::new("GET /board").run(future::join_all(
                (0..20).map(|_| sqlx::query("SELECT 1").execute(&pool)),
            ));
            for answer in round.await {
                answer.expect("a row");
            }
        }
        assert_silent(&bench);
    }

    #[tokio::test]
    async fn sixty_four_requests_of_two_statements_in_sequence() {
        let bench = Bench::new(config());
        let Some((_db, pool)) = pg(&bench).await else {
            return;
        };
        let request = async || {
            for sql in ["SELECT 1", "SELECT 2"] {
                sqlx::query(sql).execute(&pool).await.expect("a row");
            }
        };
        for _ in 0..1_000 {
            let requests = (0..64).map(|_| leaktrace::Scope::new("GET /order").run(request()));
            future::join_all(requests).await;
        }
        assert_silent(&bench);
    }

    /// Work through the connection, seen or raw, beside an acquire that waits for all of it: so many of
    /// them at once, each on a pool of its own. How many were said to wait.
    async fn work_beside_an_acquire(
        jobs: usize,
        work: Duration,
        pause: Duration,
        is_raw: bool,
    ) -> usize {
        let bench = Bench::new(Config::default());
        let db = sqlite_database().await;
        let jobs = (0..jobs).map(|_| {
            let pool = bench.pool::<Sqlite>(&db, 1, Duration::from_secs(30));
            leaktrace::Scope::new("POST /job").run(async move {
                let mut conn = pool.acquire().await.expect("free");
                let until = Instant::now() + work;
                let work = async move {
                    while Instant::now() < until {
                        let query = sqlx::query("SELECT 1");
                        match is_raw {
                            false => query.execute(&mut *conn).await,
                            true => query.execute(&mut **conn).await,
                        }
                        .expect("a row");
                        tokio::time::sleep(pause).await;
                    }
                };
                let (_, second) = tokio::join!(work, pool.acquire());
                second.expect("in time");
            })
        });
        future::join_all(jobs).await;
        bench.never_said(&GUILTY);
        bench.count(Severity::Warn)
    }

    #[tokio::test]
    async fn three_seconds_of_work_on_a_connection_beside_an_acquire() {
        for is_raw in [false, true] {
            let work = Duration::from_secs(3);
            let said = work_beside_an_acquire(10, work, millis(15), is_raw).await;
            assert!(said > 0, "they did wait");
        }
    }

    /// A thousand rounds: fifty at once, a little longer than a deadlock needs to be proved.
    #[tokio::test]
    async fn a_thousand_times_work_on_a_connection_beside_an_acquire() {
        let mut said = 0;
        for round in 0..20 {
            let work = millis(1_300);
            said += work_beside_an_acquire(50, work, millis(100), round % 2 == 1).await;
        }
        assert!(said > 0, "they did wait");
    }
}
