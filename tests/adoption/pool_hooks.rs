//! User code: the three hooks of `PoolOptions`. They are the user's: each runs as often, with the
//! same answer obeyed, whether or not somebody watches the pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use sqlx::{Executor, PgConnection};

use crate::db::{PgPoolOptions, all_back};
use crate::ground;

#[tokio::test]
async fn each_hook_runs_and_is_obeyed() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let [connected, acquired, released] = [const { AtomicUsize::new(0) }; 3].map(Arc::new);
    let [on_connect, on_acquire, on_release] = [&connected, &acquired, &released].map(Arc::clone);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .after_connect(move |conn, meta| {
            assert!(meta.age.is_zero() && meta.idle_for.is_zero());
            on_connect.fetch_add(1, SeqCst);
            Box::pin(async move {
                conn.execute("SET application_name = 'from after_connect'")
                    .await?;
                Ok(())
            })
        })
        .before_acquire(move |conn, meta| {
            let nth = on_acquire.fetch_add(1, SeqCst) + 1;
            Box::pin(async move {
                assert!(meta.age >= meta.idle_for);
                conn.execute("SELECT 1").await?;
                // The second reuse is refused: the pool opens another connection.
                Ok(nth != 2)
            })
        })
        .after_release(move |conn, _meta| {
            on_release.fetch_add(1, SeqCst);
            Box::pin(async move {
                conn.execute("SELECT 1").await?;
                Ok(true)
            })
        })
        .connect_with(options)
        .await?;
    assert_eq!(connected.load(SeqCst), 1);

    let pid = async |conn: &mut PgConnection| -> sqlx::Result<(i32, String)> {
        sqlx::query_as("SELECT pg_backend_pid(), current_setting('application_name')")
            .fetch_one(conn)
            .await
    };
    let mut seen = Vec::new();
    for round in 0..3 {
        all_back(&pool).await;
        let before = released.load(SeqCst);
        let mut conn = pool.acquire().await?;
        seen.push(pid(&mut conn).await?);
        drop(conn);
        all_back(&pool).await;
        assert_eq!(released.load(SeqCst), before + 1, "round {round}");
    }
    assert_eq!(connected.load(SeqCst), 2);
    assert_eq!(acquired.load(SeqCst), 3);
    assert!(seen[0].0 != seen[1].0 && seen[1].0 == seen[2].0, "{seen:?}");
    assert!(seen.iter().all(|(_, name)| name == "from after_connect"));
    Ok(())
}

#[tokio::test]
async fn a_release_that_is_refused_closes_the_connection() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .after_release(|_conn, _meta| Box::pin(std::future::ready(Ok(false))))
        .connect_with(options)
        .await?;
    let before: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&pool)
        .await?;
    let after: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&pool)
        .await?;
    assert_ne!(before, after);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_connect_that_fails_fails_the_acquire() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool = PgPoolOptions::new()
        .acquire_timeout(std::time::Duration::from_millis(300))
        .after_connect(|conn, _meta| {
            Box::pin(async move {
                conn.execute("SELECT nonsense").await?;
                Ok(())
            })
        })
        .connect_lazy_with(options);
    assert!(pool.acquire().await.is_err());
    assert_eq!(pool.num_idle(), 0);
    Ok(())
}
