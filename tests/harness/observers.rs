//! The observers see an open transaction of a raw connection, and its end.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::support::db::with_parameter;
use crate::support::observer::{MySqlObserver, PgObserver, SqliteObserver};
use crate::support::{Db, Observer, TestDb, database, eventually};

const LONG: Duration = Duration::from_secs(10);

/// The number of open transactions, awaited, because MariaDB shows them up to 0.1 s late.
async fn open(observer: &mut Observer, expected: usize) {
    let what = format!("{expected} open transactions");
    eventually(&what, LONG, async || {
        let seen = observer.open_transactions().await;
        if seen == expected { Ok(()) } else { Err(seen) }
    })
    .await;
}

/// One raw connection begins, writes and ends in each of the two ways.
async fn sees_a_transaction<C>(test: &TestDb)
where
    C: Connection,
    for<'c> &'c mut C: Executor<'c>,
{
    let mut observer = Observer::watch(test).await;
    observer.execute("CREATE TABLE t (id int)").await;
    let mut conn = C::connect(&test.url).await.expect("a connection");
    open(&mut observer, 0).await;
    for (end, rows) in [("ROLLBACK", 0), ("COMMIT", 1)] {
        for sql in ["BEGIN", "INSERT INTO t VALUES (1)"] {
            conn.execute(AssertSqlSafe(sql)).await.expect(sql);
        }
        open(&mut observer, 1).await;
        assert_eq!(observer.rows("t").await, 0, "seen before {end}");
        conn.execute(AssertSqlSafe(end)).await.expect(end);
        open(&mut observer, 0).await;
        assert_eq!(observer.rows("t").await, rows, "seen after {end}");
    }
    if test.db == Db::Postgres || test.db == Db::MySql {
        assert_eq!(observer.connections().await, Some(1));
    }
    conn.close().await.expect("a close");
    eventually("the connection's end", LONG, async || {
        observer.connections().await.unwrap_or(0) == 0
    })
    .await;
}

#[tokio::test]
async fn a_transaction_and_its_end_are_seen_on_postgres() {
    if let Some(test) = database(Db::Postgres).await {
        sees_a_transaction::<sqlx::PgConnection>(&test).await;
    }
}

#[tokio::test]
async fn a_transaction_and_its_end_are_seen_on_mariadb() {
    if let Some(test) = database(Db::MySql).await {
        sees_a_transaction::<sqlx::MySqlConnection>(&test).await;
    }
}

#[tokio::test]
async fn a_transaction_and_its_end_are_seen_on_sqlite() {
    if let Some(test) = database(Db::Sqlite).await {
        sees_a_transaction::<sqlx::SqliteConnection>(&test).await;
    }
}

#[tokio::test]
async fn a_transaction_and_its_end_are_seen_behind_any() {
    if let Some(test) = database(Db::Any).await {
        sees_a_transaction::<sqlx::AnyConnection>(&test).await;
    }
}

#[tokio::test]
async fn a_postgres_backend_is_described_and_terminated() {
    let Some(test) = database(Db::Postgres).await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let url = with_parameter(&test.url, "application_name", "victim");
    let mut conn = sqlx::PgConnection::connect(&url).await.expect("a victim");
    conn.execute("BEGIN").await.expect("BEGIN");
    conn.execute("SELECT 42").await.expect("SELECT");
    let found = observer.backends_of("victim").await;
    let [backend] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert!(backend.is_idle_in_transaction(), "{backend:?}");
    assert!(backend.transaction.is_some(), "{backend:?}");
    assert_eq!(backend.query, "SELECT 42");
    assert!(observer.terminate(backend.pid).await);
    assert!(conn.execute("SELECT 1").await.is_err());
    eventually("the backend's end", LONG, async || {
        observer.backend(backend.pid).await.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_mariadb_thread_is_described_and_terminated() {
    let Some(test) = database(Db::MySql).await else {
        return;
    };
    let mut observer = MySqlObserver::watch(&test).await;
    let mut conn = sqlx::MySqlConnection::connect(&test.url)
        .await
        .expect("a victim");
    let found = observer.threads().await;
    let [thread] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(
        (thread.command.as_str(), &thread.statement),
        ("Sleep", &None)
    );
    assert!(observer.terminate(thread.id).await);
    assert!(conn.execute("SELECT 1").await.is_err());
    eventually("the thread's end", LONG, async || {
        observer.thread(thread.id).await.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_reader_of_sqlite_does_not_look_like_a_writer() {
    let test = crate::support::db::sqlite_database().await;
    let mut observer = SqliteObserver::watch(&test).await;
    observer.execute("CREATE TABLE t (id int)").await;
    let mut conn = sqlx::SqliteConnection::connect(&test.url)
        .await
        .expect("a connection");
    conn.execute("BEGIN").await.expect("BEGIN");
    conn.execute("SELECT * FROM t").await.expect("SELECT");
    assert!(!observer.write_locked().await);
    conn.execute("INSERT INTO t VALUES (1)")
        .await
        .expect("INSERT");
    assert!(observer.write_locked().await);
}
