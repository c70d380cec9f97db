//! User code: pools in statics, and guards behind mutexes, as request-wide transactions are kept.

use std::sync::{Arc, LazyLock};

use sqlx::Postgres;
use tokio::sync::{Mutex, OnceCell};

use crate::db::{PgPool, PgPoolOptions, SqlitePool, SqlitePoolOptions, Transaction, all_back};
use crate::ground;
use crate::support::{Db, ran_on};

type Shared = Arc<Mutex<Option<Transaction<'static, Postgres>>>>;

async fn write(shared: &Shared, body: &str) -> sqlx::Result<()> {
    let mut guard = shared.lock().await;
    let tx = guard.as_mut().ok_or(sqlx::Error::PoolClosed)?;
    sqlx::query("INSERT INTO notes (body) VALUES ($1)")
        .bind(body)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[tokio::test]
async fn two_tasks_share_one_transaction() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    let shared: Shared = Arc::new(Mutex::new(Some(pool.begin().await?)));
    let other = shared.clone();
    let task = tokio::spawn(async move { write(&other, "by a task").await });
    write(&shared, "by the test").await?;
    task.await.expect("the task ends")?;
    let tx = shared.lock().await.take().expect("it is open");
    tx.commit().await?;

    let plain = Mutex::new(pool.acquire().await?);
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(&mut **plain.lock().await)
        .await?;
    assert_eq!(count, 2);
    drop(plain);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_pool_lives_in_a_static() -> sqlx::Result<()> {
    static LAZY: LazyLock<SqlitePool> = LazyLock::new(|| {
        let options = SqlitePoolOptions::new().max_connections(1);
        options
            .connect_lazy("sqlite::memory:")
            .expect("the URL is good")
    });
    static ONCE: OnceCell<SqlitePool> = OnceCell::const_new();

    ran_on(Db::Sqlite);
    let once = ONCE
        .get_or_try_init(|| SqlitePool::connect("sqlite::memory:"))
        .await?;
    for pool in [&*LAZY, once] {
        let one: i64 = sqlx::query_scalar("SELECT 1").fetch_one(pool).await?;
        assert_eq!(one, 1);
        all_back(pool).await;
    }
    Ok(())
}
