//! The alive bypass of leaktrace's own options: who is asked before a connection is given out, what
//! is known of it without a question, and what becomes of a backend that dies in between.

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use leaktrace::{Config, Detail, Monitor, PgPoolOptions, Pool, PoolOptions, SqlitePoolOptions};
use sqlx::{Connection, PgConnection};

use support::{Db, Direction, Proxy, database};

const LONG: Duration = Duration::from_secs(60);
const PID: &str = "SELECT pg_backend_pid()";

async fn pool(url: &str, bypass: Duration, max: u32) -> Pool<sqlx::Postgres> {
    PgPoolOptions::new()
        .monitor(Monitor::new(Config::default().detail(Detail::Location)))
        .max_connections(max)
        .alive_bypass(bypass)
        .connect(url)
        .await
        .expect("a pool")
}

/// How many bytes an acquire sends to the server, after the connection has come back.
async fn sent_by_an_acquire(bypass: Duration) -> Option<u64> {
    let test = database(Db::Postgres).await?;
    let proxy = Proxy::start(&test.url);
    let pool = pool(&proxy.url(&test.url), bypass, 1).await;
    // The second time its backend is known for certain.
    for _ in 0..2 {
        pool.acquire().await.expect("a connection").release().await;
    }
    let before = proxy.bytes(Direction::ToServer);
    let conn = pool.acquire().await.expect("a connection");
    let sent = proxy.bytes(Direction::ToServer) - before;
    conn.release().await;
    pool.close().await;
    Some(sent)
}

#[tokio::test]
async fn a_connection_that_has_just_come_back_is_given_out_without_a_question() {
    if let Some(sent) = sent_by_an_acquire(LONG).await {
        assert_eq!(sent, 0);
    }
}

#[tokio::test]
async fn without_a_bypass_it_is_asked_each_time() {
    if let Some(sent) = sent_by_an_acquire(Duration::ZERO).await {
        assert!(sent > 0);
    }
}

#[tokio::test]
async fn the_backend_of_a_connection_is_known_without_a_question() {
    let Some(test) = database(Db::Postgres).await else {
        return;
    };
    let pool = pool(&test.url, LONG, 4).await;
    for _ in 0..20 {
        let mut out = Vec::new();
        let mut pids = Vec::new();
        for _ in 0..4 {
            let mut conn = pool.acquire().await.expect("a connection");
            let pid: i32 = sqlx::query_scalar(PID)
                .fetch_one(&mut *conn)
                .await
                .expect("a pid");
            pids.push(Some(i64::from(pid)));
            out.push(conn);
        }
        // Oldest first: in the order of the acquires.
        let named: Vec<_> = pool.holders().iter().map(|holder| holder.backend).collect();
        assert_eq!(named, pids);
        for conn in out.into_iter().rev() {
            conn.release().await;
        }
    }
    pool.close().await;
}

#[tokio::test]
async fn options_answer_what_the_user_set() {
    for test in [true, false] {
        let pool = SqlitePoolOptions::new()
            .monitor(Monitor::new(Config::default()))
            .test_before_acquire(test)
            .max_connections(3)
            .overflow(2)
            .connect_lazy("sqlite::memory:")
            .expect("a pool");
        assert_eq!(pool.options().get_test_before_acquire(), test);
        assert_eq!(pool.options().get_max_connections(), 3);
    }
    assert_eq!(
        PoolOptions::<sqlx::Sqlite>::new().get_alive_bypass(),
        Duration::from_millis(500)
    );
}

/// What somebody sees whose connection's backend was killed so long after it came back.
#[derive(Debug)]
struct Outcome {
    /// For how long it was idle at least, and at most.
    idle: [Duration; 2],
    statement: Result<i32, sqlx::Error>,
    /// The checkout after that one.
    next: Result<i32, sqlx::Error>,
}

macro_rules! killed {
    ($test:expr, $pool:expr, $after:expr) => {{
        let mut side = PgConnection::connect(&$test.url)
            .await
            .expect("a side connection");
        let mut conn = $pool.acquire().await.expect("a connection");
        let pid: i32 = sqlx::query_scalar(PID)
            .fetch_one(&mut *conn)
            .await
            .expect("a pid");
        let given = Instant::now();
        drop(conn);
        while $pool.num_idle() == 0 {
            tokio::task::yield_now().await;
        }
        let back = Instant::now();
        tokio::time::sleep($after).await;
        kill(&mut side, pid).await;
        let least = back.elapsed();
        let mut conn = $pool.acquire().await.expect("a connection, or a new one");
        let idle = [least, given.elapsed()];
        let statement = sqlx::query_scalar("SELECT 1").fetch_one(&mut *conn).await;
        drop(conn);
        let mut conn = $pool.acquire().await.expect("a connection, or a new one");
        let next = sqlx::query_scalar("SELECT 1").fetch_one(&mut *conn).await;
        drop(conn);
        $pool.close().await;
        Outcome {
            idle,
            statement,
            next,
        }
    }};
}

/// Ends a backend, and waits until it is gone.
async fn kill(side: &mut PgConnection, pid: i32) {
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
    sqlx::query("SELECT pg_terminate_backend($1)")
        .bind(pid)
        .execute(&mut *side)
        .await
        .expect("the right to end it");
    loop {
        let left: i64 = sqlx::query_scalar(gone)
            .bind(pid)
            .fetch_one(&mut *side)
            .await
            .expect("a count");
        if left == 0 {
            return;
        }
    }
}

/// In docs/performance.md as a table.
#[tokio::test]
async fn a_backend_that_dies_within_the_bypass_costs_one_statement_and_no_more() {
    let bypass = Duration::from_millis(500);
    for after in [0, 100, 400, 600].map(Duration::from_millis) {
        let Some(test) = database(Db::Postgres).await else {
            return;
        };
        let raw = sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .connect(&test.url)
            .await
            .expect("a pool");
        let on_raw = killed!(test, raw, after);
        let asks_always = pool(&test.url, Duration::ZERO, 1).await;
        let without = killed!(test, asks_always, after);
        let ours = pool(&test.url, bypass, 1).await;
        let with = killed!(test, ours, after);
        println!("killed after {after:?}: raw {on_raw:?}; bypass 0 {without:?}; 500 ms {with:?}");
        for asked in [&on_raw, &without] {
            assert!(asked.statement.is_ok(), "{asked:?}");
            assert!(asked.next.is_ok(), "{asked:?}");
        }
        assert!(with.next.is_ok(), "{with:?}");
        // A busy machine may take longer than it was told to: what counts is how long it was idle.
        let [least, most] = with.idle;
        if most < bypass {
            assert!(with.statement.is_err(), "{with:?}");
        } else if least > bypass {
            assert!(with.statement.is_ok(), "{with:?}");
        }
    }
}
