//! How many sessions the server has, and for how long.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::FutureExt;
use leaktrace::kit::{PoolSettings, Traffic};
use leaktrace::{PgPool, SqlitePool};

use crate::settle::{open, read};
use crate::support::db::{postgres_database, sqlite_memory};
use crate::support::observer::PgObserver;
use crate::support::{TestDb, eventually};

const LONG: Duration = Duration::from_secs(60);
/// Long enough to connect on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
const LIFETIME: Duration = Duration::from_secs(10);

fn settings(test: &TestDb) -> PoolSettings {
    PoolSettings::default()
        .service("orders")
        .acquire_timeout(PATIENCE)
        .url(&test.url)
        .expect("a URL")
}

async fn pids(observer: &mut PgObserver) -> BTreeSet<i32> {
    let backends = observer.backends_of("orders").await;
    backends.iter().map(|backend| backend.pid).collect()
}

/// The server lists a session for a moment after it is closed, such as that of the first try.
async fn has_sessions(observer: &mut PgObserver, count: usize) {
    let what = format!("the server has {count} sessions");
    eventually(&what, LONG, async || {
        let now = pids(observer).await.len();
        (now == count).then_some(()).ok_or(now)
    })
    .await;
}

#[tokio::test]
async fn the_most_connections_are_the_most_sessions_and_an_acquire_ends_in_time() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let pool: PgPool = open(&settings(&test).max_connections(3))
        .await
        .expect("a pool");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.acquire().await.expect("a connection"));
    }
    let start = Instant::now();
    pool.acquire().await.expect_err("a fourth");
    assert!(start.elapsed() >= PATIENCE, "{:?}", start.elapsed());
    has_sessions(&mut observer, 3).await;
}

#[tokio::test]
async fn extra_sessions_are_there_for_a_while_and_then_closed() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let sized = settings(&test).max_connections(2).max_overflow(3);
    let pool: PgPool = open(&sized).await.expect("a pool");
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(pool.acquire().await.expect("a connection"));
    }
    has_sessions(&mut observer, 5).await;
    pool.acquire().await.expect_err("a sixth");
    for conn in held {
        conn.release().await;
    }
    has_sessions(&mut observer, 2).await;
    // Those of the base stay.
    let one = pool.acquire().await.expect("a connection");
    one.release().await;
    has_sessions(&mut observer, 2).await;
}

/// All clients come at once, and come again: the server never counts more than base and overflow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_twenty_never_has_more_than_base_and_overflow_on_the_server() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let sized = settings(&test)
        .acquire_timeout(LONG)
        .max_connections(2)
        .max_overflow(3);
    let pool: PgPool = open(&sized).await.expect("a pool");
    // The session of the first try is listed for a moment, beside the pool's first one.
    has_sessions(&mut observer, 1).await;
    let (mut most, mut samples) = (0, 0);
    for _ in 0..5 {
        let pool = pool.clone();
        // All of them stand in line before the first one is served: from then on the pool shrinks. The
        // server lists a session for a moment after it is closed, beside one that would be opened then.
        let clients = tokio::spawn(async move {
            let client = || sqlx::query("SELECT pg_sleep(0.05)").execute(&pool);
            futures::future::try_join_all((0..20).map(|_| client())).await
        });
        while !clients.is_finished() {
            most = most.max(pids(&mut observer).await.len());
            samples += 1;
        }
        let answers = clients.await.expect("no panic");
        assert_eq!(answers.expect("answers").len(), 20);
        has_sessions(&mut observer, 2).await;
    }
    assert_eq!(most, 5, "in {samples} samples");
    leaktrace::assert_no_leaks!(pool);
    has_sessions(&mut observer, 2).await;
}

#[tokio::test]
async fn an_extra_connection_goes_to_who_waits_instead_of_being_closed() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let sized = settings(&test)
        .max_connections(1)
        .max_overflow(1)
        .acquire_timeout(LONG)
        .connect_timeout(Duration::from_secs(5));
    let pool: PgPool = open(&sized).await.expect("a pool");
    let _kept = pool.acquire().await.expect("a connection");
    let mut extra = pool.acquire().await.expect("an extra one");
    let pid = |sql| sqlx::query_scalar::<_, i32>(sql);
    let first = pid("SELECT pg_backend_pid()")
        .fetch_one(&mut *extra)
        .await
        .expect("a pid");
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move {
            sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()")
                .fetch_one(&pool)
                .await
        }
    });
    eventually("somebody waits", LONG, async || pool.status().waiting == 1).await;
    drop(extra);
    let second = waiter.await.expect("no panic").expect("a pid");
    assert_eq!(first, second);
}

/// Two come back, and one is waited for. Who waits is granted the first, and waits until it is polled.
#[tokio::test]
async fn an_extra_connection_is_closed_when_who_waits_has_another_one() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let sized = settings(&test)
        .max_connections(1)
        .max_overflow(1)
        .acquire_timeout(LONG);
    let pool: PgPool = open(&sized).await.expect("a pool");
    let one = pool.acquire().await.expect("a connection");
    let extra = pool.acquire().await.expect("an extra one");
    let mut waiter = Box::pin(pool.acquire());
    assert!((&mut waiter).now_or_never().is_none());
    one.release().await;
    assert_eq!((pool.status().waiting, pool.status().idle), (1, 1));
    extra.release().await;
    let _served = waiter.await.expect("the first one");
    has_sessions(&mut observer, 1).await;
}

#[tokio::test]
async fn warm_up_has_the_sessions_there_before_the_start_is_over() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let patient = settings(&test).acquire_timeout(LONG);
    let warm = patient.clone().min_connections(4).warm_up(true);
    let pool: PgPool = open(&warm).await.expect("a pool");
    let there = pids(&mut observer).await;
    // The session of the first try may not be gone yet.
    assert!((4..=5).contains(&there.len()), "{there:?}");
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(pool.acquire().await.expect("a connection"));
    }
    assert!(
        pids(&mut observer).await.is_subset(&there),
        "one more was opened"
    );
    drop(held);
    pool.close().await;

    let pool: PgPool = open(&patient.min_connections(3)).await.expect("a pool");
    has_sessions(&mut observer, 3).await;
    drop(pool);
}

#[tokio::test]
async fn a_preset_has_its_sizes_on_the_server() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let pool: PgPool = open(&settings(&test).traffic(Traffic::Low))
        .await
        .expect("a pool");
    let mut held = Vec::new();
    while let Ok(conn) = pool.acquire().await {
        held.push(conn);
    }
    assert_eq!(held.len(), 5);
    has_sessions(&mut observer, 5).await;
}

#[tokio::test]
async fn an_idle_session_is_closed_after_its_time() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let idle = settings(&test).idle_timeout(Some(Duration::from_secs(1)));
    let pool: PgPool = open(&idle).await.expect("a pool");
    pool.acquire().await.expect("a connection").release().await;
    has_sessions(&mut observer, 1).await;
    has_sessions(&mut observer, 0).await;
}

/// The ages at which the six sessions of a busy pool end, by the server's list of sessions.
async fn ages_at_the_end(test: &TestDb, jitter: Duration) -> Vec<Duration> {
    let mut observer = PgObserver::watch(test).await;
    let ageing = settings(test)
        .acquire_timeout(LONG)
        .min_connections(6)
        .max_connections(6)
        .warm_up(true)
        .max_lifetime(Some(LIFETIME))
        .lifetime_jitter(jitter);
    // Before the first of them is opened: on a busy machine that takes a while.
    let start = Instant::now();
    let pool: PgPool = open(&ageing).await.expect("a pool");
    let pid = || sqlx::query_scalar("SELECT pg_backend_pid()");
    let mut left = BTreeSet::<i32>::new();
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut conn = pool.acquire().await.expect("a connection");
        left.insert(pid().fetch_one(&mut *conn).await.expect("a pid"));
        held.push(conn);
    }
    drop(held);
    let mut ages = Vec::new();
    while !left.is_empty() {
        // In use all the time: sqlx looks at its idle connections once in a lifetime alone.
        let all = (0..6).map(|_| pool.acquire());
        for conn in futures::future::try_join_all(all)
            .await
            .expect("connections")
        {
            conn.release().await;
        }
        let now = pids(&mut observer).await;
        let gone = left.iter().filter(|pid| !now.contains(pid)).count();
        ages.extend(std::iter::repeat_n(start.elapsed(), gone));
        left.retain(|pid| now.contains(pid));
        assert!(start.elapsed() < LONG, "still there: {left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ages
}

#[tokio::test]
async fn sessions_opened_together_end_at_moments_of_their_own() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let ages = ages_at_the_end(&test, LIFETIME).await;
    let (first, last) = (ages[0], ages[5]);
    // That six of them fall into a tenth of the time is one case in 10 000.
    assert!(last - first > Duration::from_millis(500), "{ages:?}");
    assert!(first < LIFETIME, "{ages:?}");
}

#[tokio::test]
async fn without_jitter_they_live_their_whole_life() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let ages = ages_at_the_end(&test, Duration::ZERO).await;
    assert!(ages.iter().all(|age| *age >= LIFETIME), "{ages:?}");
}

#[tokio::test]
async fn a_database_in_memory_outlives_its_idle_time() {
    let test = sqlite_memory();
    let settings = read(&[("DATABASE_URL", &test.url)]).expect("settings");
    let pool: SqlitePool = open(&settings).await.expect("a pool");
    assert_eq!(pool.options().get_idle_timeout(), None);
    assert_eq!(pool.options().get_max_lifetime(), None);
    sqlx::query("CREATE TABLE orders (id integer)")
        .execute(&pool)
        .await
        .expect("a table");
    sqlx::query("SELECT * FROM orders")
        .execute(&pool)
        .await
        .expect("still there");
}
