//! W3 and W5, and returns of which the backend is not known.

use std::time::Duration;

use leaktrace::{Config, Finding, Kind, Monitor};
use sqlx::{Postgres, Sqlite};

use crate::stage::{LONG, Stage, cut, ours, ours_opened, raw};
use crate::support::{Capture, Db, Observer, eventually};

/// W3. sqlx's return is a task: right after the drop nothing is idle yet.
#[tokio::test]
async fn right_after_a_drop_sqlx_has_nothing_idle() {
    let stage = Stage::set(Db::Sqlite).await.expect("it is always there");
    let pool = raw::<Sqlite>(&stage, 1).await;
    drop(pool.acquire().await.expect("a connection"));
    assert_eq!((pool.size(), pool.num_idle()), (1, 0), "sqlx has changed");
    eventually("it is back", LONG, async || pool.num_idle() == 1).await;
}

/// W3. Neither is it with leaktrace, which says so, and does not call it a leak.
macro_rules! is_returning {
    ($db:ty, $stage:ident) => {{
        let (pool, findings) = ours::<$db>(&$stage, 1).await;
        drop(pool.acquire().await.expect("a connection"));
        let status = pool.status();
        assert_eq!((status.held, status.returning), (0, 1), "{status:?}");
        pool.find_leaks(LONG).await.expect("it is waited for");
        assert_eq!(pool.status().returning, 0);
        assert!(findings.is_empty(), "{:?}", findings.all());
    }};
}

on_each! {
    right_after_a_drop_a_connection_is_returning_and_no_leak [Postgres, MySql, Sqlite, Any] is_returning;
}

#[tokio::test]
async fn what_is_still_returning_is_called_so_with_its_age() {
    let Some(stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let (pool, _) = ours::<Postgres>(&stage, 1).await;
    let network = stage.proxy.as_ref().expect("a network");
    let conn = pool.acquire().await.expect("a connection");
    network.stall();
    drop(conn);
    let found = pool.find_leaks(Duration::from_millis(100)).await;
    let said = found.expect_err("it does not arrive").to_string();
    assert!(said.contains("still returning, for "), "{said}");
    assert!(!said.contains("held,"), "{said}");
    network.resume();
    leaktrace::assert_no_leaks!(pool);
}

/// W5. sqlx counts what is idle beside the queue, and the count can wrap below zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_never_more_idle_than_the_pool_has() {
    const PLACES: u32 = 4;
    let stage = Stage::set(Db::Sqlite).await.expect("it is always there");
    let (pool, _) = ours::<Sqlite>(&stage, PLACES).await;
    let churn: Vec<_> = (0..8)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for round in 0..500 {
                    let conn = pool.acquire().await.expect("a connection");
                    if (round + task) % 7 == 0 {
                        conn.close().await.expect("it closes");
                    }
                }
            })
        })
        .collect();
    let mut looks = 0;
    while churn.iter().any(|task| !task.is_finished()) {
        let idle = pool.num_idle();
        assert!(idle <= PLACES as usize, "{idle}");
        let status = pool.status();
        assert!(
            status.idle <= PLACES && status.in_progress <= PLACES,
            "{status:?}"
        );
        looks += 1;
        tokio::task::yield_now().await;
    }
    assert!(looks > 10, "{looks}");
    for task in churn {
        task.await.expect("nothing panics");
    }
    leaktrace::assert_no_leaks!(pool);
}

/// A statement was cut, and which backend runs it was never learned: it cannot be cancelled, and
/// closing it would leave it running. So its place is kept until it ends.
///
/// The server is given 0.9 s to answer. On a busy machine it may take longer, and the connection is
/// closed: that is no failure, and the next round may be luckier.
async fn is_kept(
    stage: &mut Stage,
    pool: &leaktrace::Pool<Postgres>,
    take: impl AsyncFn() -> leaktrace::PoolConnection<Postgres>,
    findings: &Capture<Finding>,
) {
    for _ in 0..20 {
        if is_kept_now(stage, pool, take().await, findings).await {
            return;
        }
    }
    panic!("the server never answered in time");
}

async fn is_kept_now(
    stage: &mut Stage,
    pool: &leaktrace::Pool<Postgres>,
    mut conn: leaktrace::PoolConnection<Postgres>,
    findings: &Capture<Finding>,
) -> bool {
    findings.take();
    let slow = sqlx::raw_sql("SELECT pg_sleep(60)");
    assert!(cut(slow.execute(&mut *conn), 1).await.is_none());
    let Observer::Postgres(observer) = &mut stage.observer else {
        unreachable!("it watches PostgreSQL")
    };
    let sleeper = eventually("it sleeps", LONG, async || {
        let all = observer.backends().await;
        all.into_iter().find(|one| one.query.contains("pg_sleep"))
    })
    .await;
    drop(conn);
    let stuck = findings
        .wait_for("stuck_return", LONG, |all| {
            all.iter()
                .find(|finding| finding.kind == Kind::StuckReturn)
                .cloned()
        })
        .await;
    if stuck.headline.contains("does not answer") {
        assert!(observer.cancel(sleeper.pid).await);
        eventually("it ends", LONG, async || {
            let all = observer.backends().await;
            all.iter().all(|one| one.pid != sleeper.pid)
        })
        .await;
        return false;
    }
    assert!(
        stuck.headline.contains("is not known"),
        "{}",
        stuck.headline
    );
    let status = pool.status();
    assert_eq!((status.size, status.returning), (1, 1), "{status:?}");
    assert!(
        observer.backend(sleeper.pid).await.is_some(),
        "it was not cancelled"
    );
    assert!(observer.cancel(sleeper.pid).await);
    drop(pool.acquire().await.expect("now it comes back"));
    leaktrace::assert_no_leaks!(pool);
    let status = pool.status();
    assert_eq!((status.size, status.orphaned), (1, 0), "{status:?}");
    let all = observer.backends().await;
    assert!(
        all.iter().any(|one| one.pid == sleeper.pid),
        "it is the same one, not closed"
    );
    true
}

#[tokio::test]
async fn a_return_of_a_watched_pool_is_kept_while_something_may_run() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let monitor = Monitor::new(Config::default().report_interval(Duration::ZERO));
    let findings = Capture::new();
    let sink = findings.clone();
    monitor.add_sink(move |finding: &Finding| sink.push(finding.clone()));
    let pool = monitor.watch("orders", raw::<Postgres>(&stage, 1).await);
    let take = async || pool.acquire().await.expect("a connection");
    is_kept(&mut stage, &pool, take, &findings).await;
}

#[tokio::test]
async fn a_return_after_try_acquire_is_kept_while_something_may_run() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let limit = Duration::from_millis(300);
    // Each round is to be heard.
    let config = Config::default().report_interval(Duration::ZERO);
    let (pool, findings) = ours_opened::<Postgres>(&stage, 1, config, Some(limit)).await;
    let take = async || {
        // Only what is idle can be tried.
        drop(pool.acquire().await.expect("a connection"));
        eventually("an idle one", LONG, async || pool.try_acquire()).await
    };
    is_kept(&mut stage, &pool, take, &findings).await;
}

/// The twin: where the server cannot be asked either, it is closed.
#[tokio::test]
async fn a_return_of_an_unknown_backend_is_closed_when_the_server_is_silent() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let limit = Duration::from_millis(300);
    let (pool, findings) = crate::stage::ours_with_limit::<Postgres>(&stage, 1, limit).await;
    let conn = eventually("an idle one", LONG, async || pool.try_acquire()).await;
    let network = stage.proxy.as_ref().expect("a network");
    network.stall();
    drop(conn);
    eventually("its place", LONG, async || pool.size() == 0).await;
    network.resume();
    assert!(next_borrower_is_clean!(pool, stage));
    assert_eq!(findings.all()[0].kind, Kind::StuckReturn);
}
