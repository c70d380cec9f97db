//! The proxy really delays, stalls, cuts and refuses, seen by raw sqlx on both runtimes.

use std::time::{Duration, Instant};

use sqlx::{Connection, Executor};

use crate::support::{Db, Direction, Proxy, TestDb, database, eventually};

const LONG: Duration = Duration::from_secs(10);
const DELAY: Duration = Duration::from_millis(150);

/// A statement that must not end while the network stalls. It is dropped in flight.
async fn gets_no_answer<C>(conn: &mut C, proxy: &Proxy)
where
    for<'c> &'c mut C: Executor<'c>,
{
    let before = proxy.bytes(Direction::ToServer);
    tokio::select! {
        answer = conn.execute("SELECT 1") => panic!("an answer: {:?}", answer.is_ok()),
        // Once the proxy has the statement, an answer of a local server would take about 1 ms.
        () = async {
            eventually("the statement at the proxy", LONG, async || {
                proxy.bytes(Direction::ToServer) > before
            })
            .await;
            tokio::time::sleep(DELAY).await;
        } => {}
    }
}

async fn bad_network<C>(test: &TestDb)
where
    C: Connection,
    for<'c> &'c mut C: Executor<'c>,
{
    let proxy = Proxy::start(&test.url);
    let url = proxy.url(&test.url);

    // Through the proxy, nothing changed.
    let mut conn = C::connect(&url).await.expect("a connection");
    conn.execute("SELECT 1").await.expect("an answer");
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
    assert!(proxy.bytes(Direction::ToServer) > 0 && proxy.bytes(Direction::ToClient) > 0);

    // A delay holds in both directions: question and answer.
    proxy.delay(DELAY);
    let start = Instant::now();
    conn.execute("SELECT 1").await.expect("a late answer");
    assert!(start.elapsed() >= DELAY * 2, "{:?}", start.elapsed());
    proxy.delay(Duration::ZERO);

    // A stall holds everything back, in each direction; afterwards it arrives.
    for direction in [Direction::ToServer, Direction::ToClient] {
        let forwarded = proxy.bytes(Direction::ToClient);
        proxy.stall_only(direction);
        gets_no_answer(&mut conn, &proxy).await;
        let answered = proxy.bytes(Direction::ToClient) > forwarded;
        assert_eq!(answered, direction == Direction::ToClient, "{direction:?}");
        proxy.resume();
        conn.execute("SELECT 1").await.expect("an answer again");
    }
    proxy.stall();
    gets_no_answer(&mut conn, &proxy).await;
    proxy.resume();
    conn.execute("SELECT 1").await.expect("an answer again");

    // Refused: new connections fail, the old one lives.
    proxy.refuse();
    match C::connect(&url).await {
        Err(sqlx::Error::Io(error)) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        other => panic!("not refused: {:?}", other.map(|_| "connected")),
    }
    conn.execute("SELECT 1").await.expect("the old connection");
    proxy.accept();
    let second = C::connect(&url).await.expect("a second connection");
    assert_eq!((proxy.accepted(), proxy.open()), (2, 2));
    second.close().await.expect("a close");

    // Cut: the connection is dead, the proxy is not.
    proxy.cut();
    assert_eq!(proxy.open(), 0);
    let died = conn.execute("SELECT 1").await;
    assert!(matches!(died, Err(sqlx::Error::Io(_))), "not an I/O error");
    let mut conn = C::connect(&url).await.expect("a new connection");
    conn.execute("SELECT 1").await.expect("an answer");
}

#[tokio::test]
async fn a_bad_network_in_front_of_postgres_is_felt_on_one_thread() {
    if let Some(test) = database(Db::Postgres).await {
        bad_network::<sqlx::PgConnection>(&test).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_in_front_of_postgres_is_felt_on_many_threads() {
    if let Some(test) = database(Db::Postgres).await {
        bad_network::<sqlx::PgConnection>(&test).await;
    }
}

#[tokio::test]
async fn a_bad_network_in_front_of_mariadb_is_felt_on_one_thread() {
    if let Some(test) = database(Db::MySql).await {
        bad_network::<sqlx::MySqlConnection>(&test).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_in_front_of_mariadb_is_felt_on_many_threads() {
    if let Some(test) = database(Db::MySql).await {
        bad_network::<sqlx::MySqlConnection>(&test).await;
    }
}

#[tokio::test]
async fn a_stalled_server_notices_no_client_that_went_away() {
    let Some(test) = database(Db::Postgres).await else {
        return;
    };
    let proxy = Proxy::start(&test.url);
    let mut observer = crate::support::observer::PgObserver::watch(&test).await;
    let conn = sqlx::PgConnection::connect(&proxy.url(&test.url)).await;
    let conn = conn.expect("a connection");
    proxy.stall();
    drop(conn);
    // The client's end has reached the proxy, which does not pass it on.
    tokio::time::sleep(DELAY).await;
    assert_eq!(observer.backends().await.len(), 1);
    proxy.resume();
    eventually("the backend's end", LONG, async || {
        observer.backends().await.is_empty()
    })
    .await;
}
