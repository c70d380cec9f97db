//! User code: pools, connections and transactions that move to other tasks.

use sqlx::Postgres;
use tokio::task::JoinSet;

use crate::db::{PgPool, PgPoolOptions, PoolConnection, Transaction, all_back};
use crate::ground;
use crate::support::TestDb;

async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await;
    Some((db, pool.expect("the server answers")))
}

async fn count(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(pool)
        .await
}

async fn on_connection(mut conn: PoolConnection<Postgres>) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO notes (body) VALUES ('by a connection')")
        .execute(&mut *conn)
        .await?;
    Ok(())
}

async fn in_transaction(mut tx: Transaction<'static, Postgres>, keep: bool) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO notes (body) VALUES ('in a transaction')")
        .execute(&mut *tx)
        .await?;
    if keep { tx.commit().await } else { Ok(()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_a_small_pool() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let pool = pool.clone();
        tasks.spawn(async move {
            sqlx::query("INSERT INTO notes (body, stars) VALUES ('by the pool', $1)")
                .bind(n)
                .execute(&pool)
                .await
        });
    }
    while let Some(done) = tasks.join_next().await {
        assert_eq!(done.expect("the task ends")?.rows_affected(), 1);
    }
    assert_eq!(count(&pool).await?, 20);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guards_move_into_tasks_and_channels() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let conn = pool.acquire().await?;
    tokio::spawn(on_connection(conn))
        .await
        .expect("the task ends")?;
    for keep in [true, false] {
        let tx = pool.begin().await?;
        tokio::spawn(in_transaction(tx, keep))
            .await
            .expect("the task ends")?;
    }

    let (send, receive) = tokio::sync::oneshot::channel::<Transaction<'static, Postgres>>();
    let task =
        tokio::spawn(async move { in_transaction(receive.await.expect("sent"), true).await });
    assert!(send.send(pool.begin().await?).is_ok());
    task.await.expect("the task ends")?;

    assert_eq!(count(&pool).await?, 3);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn an_aborted_task_gives_its_transaction_back() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut tx = pool.begin().await?;
    let (written, seen) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        sqlx::query("INSERT INTO notes (body) VALUES ('aborted')")
            .execute(&mut *tx)
            .await?;
        let _ = written.send(());
        std::future::pending::<()>().await;
        tx.commit().await
    });
    seen.await.expect("the row was written");
    task.abort();
    assert!(task.await.expect_err("it was aborted").is_cancelled());
    all_back(&pool).await;
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn guards_of_both_kinds_join_in_one_task() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let (conn, tx) = tokio::try_join!(pool.acquire(), pool.begin())?;
    tokio::try_join!(on_connection(conn), in_transaction(tx, true))?;
    assert_eq!(count(&pool).await?, 2);
    all_back(&pool).await;
    Ok(())
}
