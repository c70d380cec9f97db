//! Reads go to a real streaming replica while it is there.

use std::time::{Duration, Instant};

use leaktrace::kit::{PoolSettings, Replicated};
use leaktrace::{Config, Monitor, PgPool};
use sqlx::{Connection, PgConnection};
use tracing::Level;

use crate::support::db::{Db, TestDb, enter, postgres_database, ran_on};
use crate::support::doors::on_the_replica;
use crate::support::servers::Servers;
use crate::support::{Events, Proxy, eventually};

const LONG: Duration = Duration::from_secs(60);

async fn pool(monitor: &Monitor, name: &str, url: &str) -> PgPool {
    let settings = PoolSettings::default()
        .service(name)
        .max_connections(2)
        .acquire_timeout(LONG)
        .url(url)
        .expect("a URL");
    let options = settings.options().monitor(monitor);
    settings.connect_with(options).await.expect("a pool")
}

/// The pool of a replica that will soon have the database.
async fn pool_of_replica(monitor: &Monitor, url: &str) -> PgPool {
    eventually("the replica has the database", LONG, async || {
        PgConnection::connect(url).await.map(drop)
    })
    .await;
    pool(monitor, "orders-replica", url).await
}

struct Stage {
    orders: Replicated<sqlx::Postgres>,
    monitor: Monitor,
    /// Of the replica.
    url: String,
    _test: TestDb,
}

async fn stage() -> Option<Stage> {
    let test = postgres_database().await?;
    let url = on_the_replica(&test)?;
    let monitor = Monitor::new(Config::default());
    let primary = pool(&monitor, "orders", &test.url).await;
    let replica = pool_of_replica(&monitor, &url).await;
    Some(Stage {
        orders: Replicated::new(primary, replica),
        monitor,
        url,
        _test: test,
    })
}

/// Whether reads are answered by the replica: in the server's own words.
async fn reads_the_replica(orders: &Replicated<sqlx::Postgres>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_is_in_recovery()")
        .fetch_one(orders.read())
        .await
}

async fn execute(pool: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(pool).await.expect("a statement");
}

/// How many clients the replica's database has, without the one that asks.
async fn sessions(url: &str) -> i64 {
    let mut conn = PgConnection::connect(url).await.expect("a connection");
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
    );
    let count = count.fetch_one(&mut conn).await.expect("a count");
    conn.close().await.expect("a close");
    count
}

#[tokio::test]
async fn what_is_written_on_the_primary_is_read_on_the_replica_and_not_written_there() {
    let Some(stage) = stage().await else {
        return;
    };
    let orders = &stage.orders;
    execute(orders.write(), "CREATE TABLE orders (id integer)").await;
    execute(orders.write(), "INSERT INTO orders VALUES (1)").await;
    eventually("the row is on the replica", LONG, async || {
        let rows = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM orders");
        rows.fetch_one(orders.read()).await.is_ok_and(|n| n == 1)
    })
    .await;
    assert!(reads_the_replica(orders).await.expect("an answer"));

    let refused = sqlx::query("INSERT INTO orders VALUES (2)")
        .execute(orders.read())
        .await
        .expect_err("a replica");
    let code = refused.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("25006"), "{refused}");
}

#[tokio::test]
async fn one_report_shows_both_pools() {
    let Some(stage) = stage().await else {
        return;
    };
    let _write = stage.orders.write().begin().await.expect("a transaction");
    let _read = stage.orders.read().acquire().await.expect("a connection");
    let report = stage.monitor.report().to_string();
    for name in ["\"orders\"", "\"orders-replica\""] {
        assert!(report.contains(&format!("pool {name}")), "{report}");
    }
    assert_eq!(stage.monitor.holders().len(), 2);
}

/// The twin of all that follows.
#[tokio::test]
async fn while_the_replica_is_there_nothing_falls_back() {
    let Some(stage) = stage().await else {
        return;
    };
    let start = Instant::now();
    let mut count = 0;
    // Several questions long.
    while start.elapsed() < Duration::from_secs(4) {
        assert!(reads_the_replica(&stage.orders).await.expect("an answer"));
        assert!(!stage.orders.is_replica_away());
        count += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(count > 10, "{count}");
}

#[tokio::test]
async fn a_replica_whose_pool_is_empty_is_there_and_nobody_stands_in_its_queue() {
    let Some(stage) = stage().await else {
        return;
    };
    let replica = stage.orders.replica();
    let _one = replica.acquire().await.expect("a connection");
    let _two = replica.acquire().await.expect("a connection");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(replica.status().waiting, 0);
        assert_eq!(stage.orders.read().name(), "orders-replica");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_at_the_primary_while_the_replica_is_stopped_and_come_back_with_it() {
    let variables = ["LEAKTRACE_TEST_MYSQL_URL", "LEAKTRACE_TEST_PGBOUNCER_URL"];
    let start = || Servers::start_without(Db::Postgres, &variables);
    let Some(servers) = tokio::task::block_in_place(start) else {
        return;
    };
    ran_on(Db::Postgres);
    enter("replica");
    let monitor = Monitor::new(Config::default());
    let primary = pool(
        &monitor,
        "orders",
        &servers.url("LEAKTRACE_TEST_POSTGRES_URL"),
    )
    .await;
    let url = servers.url("LEAKTRACE_TEST_REPLICA_URL");
    let orders = Replicated::new(primary, pool_of_replica(&monitor, &url).await);
    assert!(reads_the_replica(&orders).await.expect("an answer"));

    for _ in 0..2 {
        assert!(tokio::task::block_in_place(|| servers.run("replica-stop")));
        eventually("reads fall back", LONG, async || {
            orders.read().name() == "orders"
        })
        .await;
        assert!(!reads_the_replica(&orders).await.expect("an answer"));
        execute(orders.write(), "CREATE TABLE IF NOT EXISTS orders (id int)").await;
        execute(orders.write(), "INSERT INTO orders VALUES (1)").await;

        assert!(tokio::task::block_in_place(|| servers.run("replica-start")));
        eventually("reads are back", LONG, async || {
            orders.read().name() == "orders-replica"
        })
        .await;
        assert!(reads_the_replica(&orders).await.expect("an answer"));
    }
    // It has caught up with what was written while it was away.
    eventually("both rows are there", LONG, async || {
        let rows = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM orders");
        rows.fetch_one(orders.read()).await.is_ok_and(|n| n == 2)
    })
    .await;
    leaktrace::assert_no_leaks!(monitor);
}

#[tokio::test]
async fn a_replica_that_falls_silent_is_away_after_three_seconds_and_both_is_said_once() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let Some(url) = on_the_replica(&test) else {
        return;
    };
    let events = Events::new();
    let _subscriber = events.here();
    let monitor = Monitor::new(Config::default());
    let primary = pool(&monitor, "orders", &test.url).await;
    drop(pool_of_replica(&monitor, &url).await);
    let proxy = Proxy::start(&url);
    let replica = pool(&monitor, "orders-replica", &proxy.url(&url)).await;
    let orders = Replicated::new(primary, replica);
    assert!(reads_the_replica(&orders).await.expect("an answer"));
    assert!(!orders.is_replica_away());

    let start = Instant::now();
    proxy.stall();
    eventually("the replica is away", LONG, async || {
        orders.is_replica_away()
    })
    .await;
    // It may have fallen silent in the middle of a question.
    assert!(start.elapsed() > Duration::from_secs(2));
    assert!(!reads_the_replica(&orders).await.expect("the primary"));
    proxy.resume();
    eventually("the replica is back", LONG, async || {
        !orders.is_replica_away()
    })
    .await;

    let said: Vec<_> = events.all();
    let said: Vec<_> = said
        .iter()
        .filter(|event| event.target == "leaktrace::kit")
        .map(|event| (event.level, &*event.message))
        .collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!((said[0].0, said[1].0), (Level::WARN, Level::INFO));
    assert!(said[0].1.contains("\"orders-replica\"") && said[0].1.contains("away"));
    assert!(said[1].1.contains("back"), "{said:?}");
}

#[tokio::test]
async fn its_session_ends_with_the_last_handle() {
    let Some(stage) = stage().await else {
        return;
    };
    let other = stage.orders.clone();
    assert!(reads_the_replica(&other).await.expect("an answer"));
    assert!(sessions(&stage.url).await > 0, "the control");
    drop(stage.orders);
    drop(other);
    eventually("no session is left", LONG, async || {
        let count = sessions(&stage.url).await;
        (count == 0).then_some(()).ok_or(count)
    })
    .await;
}
