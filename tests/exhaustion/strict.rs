//! Strict mode: a nested checkout is an error before it waits.

use leaktrace::{Scope, SqlitePool, StrictError};
use sqlx::{Error, Postgres, Sqlite};

use crate::at;
use crate::bench::{Bench, PATIENCE, assert_names, quick};
use crate::support::db::{postgres_database, sqlite_database};

fn strict() -> Bench {
    Bench::new(quick().strict(true))
}

#[track_caller]
fn nested<T>(result: Result<T, Error>) -> StrictError {
    match result {
        Err(Error::AnyDriverError(error)) => match error.downcast::<StrictError>() {
            Ok(error) => *error,
            Err(other) => panic!("{other}"),
        },
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("no error"),
    }
}

async fn pool(bench: &Bench) -> (crate::support::TestDb, SqlitePool) {
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 10, PATIENCE);
    (db, pool)
}

#[tokio::test]
async fn it_is_an_error_through_every_door_though_the_pool_has_room() {
    let bench = strict();
    let (_db, pool) = pool(&bench).await;
    let held = pool.begin().await.expect("the first one");
    let error = nested(pool.acquire().await);
    assert_names(
        &error.to_string(),
        &[
            &at!("let held = pool.begin()"),
            &at!("nested(pool.acquire().await)"),
        ],
    );
    nested(pool.begin().await);
    nested(pool.begin_with("BEGIN IMMEDIATE").await);
    let statement = nested(sqlx::query("SELECT 1").execute(&pool).await);
    assert_names(&statement.to_string(), &["a statement on the pool"]);
    nested(sqlx::Acquire::acquire(&pool).await);
    nested(sqlx::Acquire::begin(&pool).await);
    nested(pool.labeled("other").acquire().await);
    assert!(bench.monitor.waiters().is_empty());
    held.commit().await.expect("saved");
    drop(pool.acquire().await.expect("none is held"));
}

#[tokio::test]
async fn a_savepoint_the_same_connection_twice_and_one_after_the_other_are_none() {
    let bench = strict();
    let (_db, pool) = pool(&bench).await;
    let mut tx = pool.begin().await.expect("the only one");
    let mut savepoint = tx.begin().await.expect("no second one");
    for _ in 0..2 {
        let query = sqlx::query("SELECT 1");
        query.execute(&mut *savepoint).await.expect("a row");
    }
    savepoint.commit().await.expect("released");
    tx.commit().await.expect("saved");
    for _ in 0..3 {
        sqlx::query("SELECT 1").execute(&pool).await.expect("a row");
    }
}

#[tokio::test]
async fn statements_of_one_request_at_once_are_none() {
    let bench = strict();
    let Some(db) = postgres_database().await else {
        return;
    };
    let pool = bench.open_pool::<Postgres>(&db, 4, PATIENCE).await;
    for _ in 0..100 {
        let query = || sqlx::query("SELECT 1").fetch_all(&pool);
        let (left, right) = Scope::new("GET /board")
            .run(async { tokio::join!(query(), query()) })
            .await;
        left.and(right).expect("rows");
    }
}

#[tokio::test]
async fn two_requests_and_two_tasks_are_not_one() {
    let bench = strict();
    let (_db, pool) = pool(&bench).await;
    let _held = pool.acquire().await.expect("the first one");
    let other = tokio::spawn(pool.acquire()).await.expect("no panic");
    other.expect("another task");
    let request = Scope::new("GET /board").run(pool.acquire());
    request.await.expect("another request");
}

#[tokio::test]
async fn without_strict_mode_it_is_no_error() {
    let bench = Bench::quick();
    let (_db, pool) = pool(&bench).await;
    let _held = pool.begin().await.expect("the first one");
    pool.acquire().await.expect("the second one");
}
