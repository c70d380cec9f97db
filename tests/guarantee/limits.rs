//! W1 and W2: returns that do not arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leaktrace::{Config, Kind};
use sqlx::{MySql, Postgres};

use crate::stage::{LONG, Stage, cut, ours_made_with, ours_with_limit, raw};
use crate::support::{Db, Observer, eventually};

const SHORT: Duration = Duration::from_millis(300);

/// W1. The peer falls silent; then the connection comes back.
macro_rules! silent_peer {
    ($pool:expr, $stage:expr) => {{
        let mut conn = $pool.acquire().await.expect("a connection");
        sqlx::query("SELECT 1")
            .execute(&mut *conn)
            .await
            .expect("an answer");
        $stage.proxy.as_ref().expect("a network").stall();
        drop(conn);
    }};
}

macro_rules! raw_waits_for_ever {
    ($db:ty, $stage:ident) => {{
        let pool = raw::<$db>(&$stage, 1).await;
        silent_peer!(pool, $stage);
        // As long as leaktrace takes for it, twice over.
        tokio::time::sleep(SHORT * 8).await;
        assert_eq!((pool.size(), pool.num_idle()), (1, 0), "sqlx has changed");
    }};
}

macro_rules! ours_gives_it_up {
    ($db:ty, $stage:ident) => {{
        let (pool, findings) = ours_with_limit::<$db>(&$stage, 1, SHORT).await;
        silent_peer!(pool, $stage);
        eventually("the permit", LONG, async || pool.size() == 0).await;
        let stuck = findings
            .wait_for("stuck_return", LONG, |all| {
                all.iter()
                    .find(|finding| finding.kind == Kind::StuckReturn)
                    .cloned()
            })
            .await;
        assert!(
            stuck.headline.contains("does not answer"),
            "{}",
            stuck.headline
        );
        let by = stuck.holders[0].acquired_by.as_ref().expect("its line");
        assert!(by.file().ends_with("limits.rs"), "{by}");
        $stage.proxy.as_ref().expect("a network").resume();
        assert!(next_borrower_is_clean!(pool, $stage));
        assert_eq!(pool.status().orphaned, 0);
        leaktrace::assert_no_leaks!(pool);
    }};
}

/// The twin: a peer that is only slow is waited for.
macro_rules! ours_waits_for_a_slow_one {
    ($db:ty, $stage:ident) => {{
        // Its acquires wait for long too, which is no finding of this test.
        let config = Config::default().wait(LONG * 3);
        let (pool, findings) = crate::stage::ours_with::<$db>(&$stage, 1, config).await;
        $stage.proxy.as_ref().expect("a network").delay(SHORT);
        for _ in 0..2 {
            drop(pool.acquire().await.expect("a connection"));
        }
        eventually("it is back", LONG, async || pool.num_idle() == 1).await;
        assert_eq!(pool.size(), 1);
        assert!(findings.is_empty(), "{:?}", findings.all());
    }};
}

on_each! {
    a_silent_peer_keeps_the_permit_of_sqlx [Postgres, MySql] raw_waits_for_ever;
    a_silent_peer_is_given_up_at_the_limit [Postgres, MySql] ours_gives_it_up;
    a_slow_peer_is_waited_for [Postgres, MySql] ours_waits_for_a_slow_one;
}

/// The limit is kept without a runtime's timer, at any detail.
#[tokio::test]
async fn at_detail_off_the_limit_holds_and_nothing_is_said() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    let config = Config::default().detail(leaktrace::Detail::Off);
    let (pool, findings) =
        crate::stage::ours_opened::<Postgres>(&stage, 1, config, Some(SHORT)).await;
    silent_peer!(pool, stage);
    eventually("the permit", LONG, async || pool.size() == 0).await;
    stage.proxy.as_ref().expect("a network").resume();
    assert!(next_borrower_is_clean!(pool, stage));
    assert!(findings.is_empty(), "{:?}", findings.all());
}

/// The backends that sleep: the abandoned ones.
pub(crate) async fn sleepers(observer: &mut Observer) -> usize {
    match observer {
        Observer::Postgres(observer) => observer
            .backends()
            .await
            .iter()
            .filter(|backend| backend.query.contains("pg_sleep"))
            .count(),
        Observer::MySql(observer) => observer
            .threads()
            .await
            .iter()
            .filter(|thread| thread.statement.as_deref().unwrap_or("").contains("SLEEP"))
            .count(),
        Observer::Sqlite(_) => 0,
    }
}

/// Ends the backends that sleep.
async fn end_sleepers(observer: &mut Observer) {
    match observer {
        Observer::Postgres(observer) => {
            for backend in observer.backends().await {
                if backend.query.contains("pg_sleep") {
                    observer.terminate(backend.pid).await;
                }
            }
        }
        Observer::MySql(observer) => {
            for thread in observer.threads().await {
                if thread.statement.as_deref().unwrap_or("").contains("SLEEP") {
                    observer.terminate(thread.id).await;
                }
            }
        }
        Observer::Sqlite(_) => {}
    }
}

/// W2. `times` statements of a minute are cut shortly after they were sent, two at a time.
///
/// The server is given 0.9 s to answer. On a busy machine it may take longer, and the connection is
/// closed: then its statement goes on, without a place. Counted, by the connections that were opened
/// instead; where none was, two are all there ever are.
macro_rules! abandon {
    ($db:ty, $stage:ident, $sleep:literal, $times:expr) => {{
        let opened = Arc::new(AtomicUsize::new(0));
        let counted = opened.clone();
        let options = leaktrace::PoolOptions::<$db>::new().after_connect(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::ready(Ok(())))
        });
        let limit = Some(Duration::from_millis(100));
        let made = ours_made_with(&$stage, 2, Config::default(), limit, options).await;
        let (pool, findings) = made;
        let given_up = || opened.load(Ordering::SeqCst).saturating_sub(2);
        let mut most = 0;
        for _ in 0..$times {
            let mut conn = pool.acquire().await.expect("the places come back");
            let ended = cut(sqlx::raw_sql($sleep).execute(&mut *conn), 1).await;
            assert!(ended.is_none(), "{ended:?}");
            drop(conn);
            let sleep = sleepers(&mut $stage.observer).await;
            most = most.max(sleep);
            let status = pool.status();
            assert!(status.size <= 2 && status.returning <= 2, "{status:?}");
            let given_up = given_up();
            assert!(
                sleep <= 2 + given_up,
                "{sleep} backends sleep for a pool of 2, {given_up} were given up"
            );
        }
        assert!(most > 0, "nothing slept");
        if given_up() > 0 {
            println!(
                "{} of {} were given up: the server was late",
                given_up(),
                $times
            );
            end_sleepers(&mut $stage.observer).await;
        }
        eventually("all of them end", LONG, async || {
            sleepers(&mut $stage.observer).await == 0
        })
        .await;
        // A MariaDB that was asked to end what just ends takes seconds for it.
        pool.find_leaks(LONG).await.expect("all of them are back");
        assert_eq!(pool.status().orphaned, 0);
        assert!(pool.size() == 2 || given_up() > 0, "cancelled, not closed");
        let stuck = findings.all();
        let cancelled = |text: &str| text.contains("was cancelled there");
        assert!(
            stuck.iter().any(|finding| cancelled(&finding.headline)),
            "{stuck:?}"
        );
        assert!(next_borrower_is_clean!(pool, $stage));
    }};
}

#[tokio::test]
async fn two_hundred_abandoned_statements_never_have_more_backends_than_the_pool_postgres() {
    let Some(mut stage) = Stage::set(Db::Postgres).await else {
        return;
    };
    abandon!(Postgres, stage, "SELECT pg_sleep(60)", 200);
}

#[tokio::test]
async fn two_hundred_abandoned_statements_never_have_more_threads_than_the_pool_mysql() {
    let Some(mut stage) = Stage::set(Db::MySql).await else {
        return;
    };
    abandon!(MySql, stage, "SELECT SLEEP(60)", 200);
}
