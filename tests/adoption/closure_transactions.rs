//! User code: `pool.transaction(async |tx| …)`. sqlx has no such method on its pool, so this file is
//! in this crate's suite alone.

use futures::FutureExt;
use sqlx::{Executor, PgConnection, Postgres};

use crate::db::{PgPool, PgPoolOptions, SqlitePool, SqlitePoolOptions, Transaction, all_back};
use crate::ground;
use crate::support::TestDb;

const WRITE: &str = "INSERT INTO notes (body) VALUES ('written')";

/// What a service makes of sqlx's errors and its own.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("not enough")]
    NotEnough,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

async fn write(conn: &mut PgConnection) -> sqlx::Result<()> {
    conn.execute(WRITE).await?;
    Ok(())
}

async fn write_in(tx: &mut Transaction<'_, Postgres>) -> sqlx::Result<()> {
    sqlx::query(WRITE).execute(&mut **tx).await?;
    Ok(())
}

async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new().connect_with(options).await;
    Some((db, pool.expect("the server answers")))
}

async fn count(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(pool)
        .await
}

#[tokio::test]
async fn a_closure_that_succeeds_is_committed() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let bodies = ["a".to_owned(), "b".to_owned()];
    let last: i64 = pool
        .transaction(async |tx| -> sqlx::Result<i64> {
            write(tx).await?;
            write_in(tx).await?;
            let mut id = 0;
            for body in &bodies {
                id = sqlx::query_scalar("INSERT INTO notes (body) VALUES ($1) RETURNING id")
                    .bind(body)
                    .fetch_one(&mut **tx)
                    .await?;
            }
            Ok(id)
        })
        .await?;
    assert_eq!((last, count(&pool).await?), (4, 4));
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_closure_that_fails_is_rolled_back_with_its_own_error() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let refused = pool
        .transaction(async |tx| {
            write(tx).await?;
            Err::<(), _>(Refused::NotEnough)
        })
        .await;
    assert!(matches!(refused, Err(Refused::NotEnough)));
    let refused: Result<(), Refused> = pool
        .transaction(async |tx| {
            write(tx).await?;
            tx.execute("SELECT nonsense").await?;
            Ok(())
        })
        .await;
    assert!(matches!(
        refused,
        Err(Refused::Database(sqlx::Error::Database(_)))
    ));
    assert_eq!(count(&pool).await?, 0);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_closure_that_panics_is_rolled_back() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let panicked = pool.transaction(async |tx| -> sqlx::Result<()> {
        write(tx).await?;
        panic!("on purpose");
    });
    let panicked = std::panic::AssertUnwindSafe(panicked).catch_unwind().await;
    assert!(panicked.is_err());
    all_back(&pool).await;
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_closure_that_is_cancelled_is_rolled_back() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let (written, seen) = tokio::sync::oneshot::channel();
    let of_task = pool.clone();
    let task = tokio::spawn(async move {
        let endless = of_task.transaction(async move |tx| -> sqlx::Result<()> {
            write(tx).await?;
            let _ = written.send(());
            std::future::pending().await
        });
        endless.await
    });
    seen.await.expect("the row was written");
    task.abort();
    assert!(task.await.expect_err("it was aborted").is_cancelled());
    all_back(&pool).await;
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_closure_uses_savepoints() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    pool.transaction(async |tx| -> sqlx::Result<()> {
        write(tx).await?;
        let mut savepoint = tx.begin().await?;
        write(&mut savepoint).await?;
        savepoint.rollback().await?;
        write(tx).await
    })
    .await?;
    assert_eq!(count(&pool).await?, 2);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_closure_runs_on_sqlite() -> sqlx::Result<()> {
    let (_db, options) = ground::sqlite().await;
    let pool: SqlitePool = SqlitePoolOptions::new().connect_with(options).await?;
    for keep in [true, false] {
        let done = pool
            .transaction(async |tx| {
                tx.execute(WRITE).await?;
                if keep {
                    Ok(())
                } else {
                    Err(Refused::NotEnough)
                }
            })
            .await;
        assert_eq!(done.is_ok(), keep);
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(&pool)
        .await?;
    assert_eq!(count, 1);
    all_back(&pool).await;
    Ok(())
}
