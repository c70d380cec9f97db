//! User code: every method of sqlx's `Pool` and of the guards it hands out, with sqlx's errors.

use std::time::Duration;

use sqlx::{Connection, Error, PgConnection, Postgres};

use crate::db::{PgPool, PgPoolOptions, Pool, PoolConnection, all_back};
use crate::ground;
use crate::support::{TestDb, eventually};

/// Two connections: the pool is exhausted easily.
async fn pool() -> Option<(TestDb, PgPool)> {
    pool_with_patience(Duration::from_secs(30)).await
}

/// The same where an acquire shall fail, with enough time to connect on a busy machine.
async fn impatient_pool() -> Option<(TestDb, PgPool)> {
    pool_with_patience(Duration::from_secs(1)).await
}

async fn pool_with_patience(patience: Duration) -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(patience)
        .connect_with(options)
        .await;
    Some((db, pool.expect("the server answers")))
}

async fn pid(conn: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(conn)
        .await
}

#[tokio::test]
async fn a_pool_connects_in_four_ways() -> sqlx::Result<()> {
    let Some((db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pools = [
        PgPool::connect(&db.url).await?,
        PgPool::connect_with(options.clone()).await?,
        Pool::<Postgres>::connect_lazy(&db.url)?,
        Pool::<Postgres>::connect_lazy_with(options),
    ];
    assert_eq!(pools.each_ref().map(|pool| pool.size()), [1, 1, 0, 0]);
    for pool in pools {
        let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await?;
        assert_eq!(one, 1);
        pool.close().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_url_that_cannot_be_read_is_the_same_error() {
    assert!(matches!(
        PgPool::connect("not a url").await,
        Err(Error::Configuration(_))
    ));
    assert!(matches!(
        PgPool::connect_lazy("not a url"),
        Err(Error::Configuration(_))
    ));
}

#[tokio::test]
async fn a_pool_is_acquired_from_until_it_is_exhausted() -> sqlx::Result<()> {
    let Some((_db, pool)) = impatient_pool().await else {
        return Ok(());
    };
    let first = pool.acquire().await?;
    assert!(pool.try_acquire().is_none(), "the second is not open yet");
    let second = pool.acquire().await?;
    assert_eq!((pool.size(), pool.num_idle()), (2, 0));
    assert!(pool.try_begin().await?.is_none());
    assert!(pool.try_begin_with("BEGIN").await?.is_none());
    // All at once, because each takes the whole patience of the pool.
    let (acquired, begun, begun_with, statement) = tokio::join!(
        pool.acquire(),
        pool.begin(),
        pool.begin_with("BEGIN"),
        sqlx::query("SELECT 1").execute(&pool),
    );
    assert!(matches!(acquired, Err(Error::PoolTimedOut)));
    assert!(matches!(begun, Err(Error::PoolTimedOut)));
    assert!(matches!(begun_with, Err(Error::PoolTimedOut)));
    assert!(matches!(statement, Err(Error::PoolTimedOut)));

    drop(first);
    all_but_one_back(&pool).await;
    let third = pool.try_acquire().expect("one is idle");
    drop((second, third));
    all_back(&pool).await;
    assert_eq!((pool.size(), pool.num_idle()), (2, 2));
    Ok(())
}

async fn all_but_one_back(pool: &PgPool) {
    let one_out = async || pool.num_idle() + 1 == pool.size() as usize;
    eventually("one is back", Duration::from_secs(10), one_out).await;
}

#[tokio::test]
async fn a_pool_begins_in_four_ways() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let level = async |conn: &mut PgConnection| -> sqlx::Result<String> {
        sqlx::query_scalar("SHOW transaction_isolation")
            .fetch_one(conn)
            .await
    };
    let mut tx = pool.begin().await?;
    assert_eq!(level(&mut tx).await?, "read committed");
    tx.commit().await?;

    let mut tx = pool
        .begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE")
        .await?;
    assert_eq!(level(&mut tx).await?, "serializable");
    tx.commit().await?;

    all_back(&pool).await;
    let mut tx = pool.try_begin().await?.expect("one is idle");
    assert_eq!(level(&mut tx).await?, "read committed");
    tx.rollback().await?;

    all_back(&pool).await;
    let tx = pool
        .try_begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await?;
    let mut tx = tx.expect("one is idle");
    assert_eq!(level(&mut tx).await?, "repeatable read");
    tx.rollback().await?;
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_begin_that_begins_nothing_is_the_same_error() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let nothing = pool.begin_with("SELECT 1").await;
    assert!(matches!(nothing, Err(Error::BeginFailed)));
    let refused = pool.begin_with("BEGIN NONSENSE").await;
    assert!(matches!(refused, Err(Error::Database(_))));
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await?;
    assert_eq!(one, 1);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_closed_pool_says_so_everywhere() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let conn = pool.acquire().await?;
    let clone = pool.clone();
    let mut event = pool.close_event();
    let until = tokio::spawn(async move { event.do_until(std::future::pending::<()>()).await });
    let closed = tokio::spawn(pool.close_event());
    assert!(!clone.is_closed());

    let closing = tokio::spawn(async move { clone.close().await });
    closed.await.expect("the event comes");
    assert!(matches!(
        until.await.expect("the event comes"),
        Err(Error::PoolClosed)
    ));
    assert!(pool.is_closed());
    assert!(matches!(pool.acquire().await, Err(Error::PoolClosed)));
    assert!(matches!(pool.begin().await, Err(Error::PoolClosed)));
    let by_statement = sqlx::query("SELECT 1").execute(&pool).await;
    assert!(matches!(by_statement, Err(Error::PoolClosed)));
    assert!(pool.try_acquire().is_none());

    // It waits for what is still out.
    assert!(!closing.is_finished());
    drop(conn);
    closing.await.expect("the task ends");
    assert_eq!(pool.size(), 0);
    Ok(())
}

#[tokio::test]
async fn a_pool_is_closed_before_its_close_is_awaited() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let close = pool.close();
    assert!(pool.is_closed());
    assert!(matches!(pool.acquire().await, Err(Error::PoolClosed)));
    close.await;
    // Once more is no mistake.
    pool.close().await;
    Ok(())
}

#[tokio::test]
async fn a_pool_ends_with_its_last_handle() -> sqlx::Result<()> {
    let Some((db, pool)) = pool().await else {
        return Ok(());
    };
    let (first, second) = (pool.acquire().await?, pool.acquire().await?);
    drop((first, second));
    all_back(&pool).await;
    let event = pool.close_event();
    let clone = pool.clone();
    drop(pool);
    assert!(!clone.is_closed());
    drop(clone);
    event.await;

    let mut alone = PgConnection::connect(&db.url).await?;
    let backends = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid() \
        AND backend_type = 'client backend'";
    eventually("both backends end", Duration::from_secs(10), async || {
        let left: i64 = sqlx::query_scalar(backends)
            .fetch_one(&mut alone)
            .await
            .expect("the server answers");
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_be_had_is_the_same_error() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    // A port that is bound, so that nobody else gets it, and refuses, because nobody listens.
    let closed = tokio::net::TcpSocket::new_v4()?;
    closed.bind(([127, 0, 0, 1], 0).into())?;
    let port = closed.local_addr()?.port();
    let impatient = PgPoolOptions::new().acquire_timeout(Duration::from_millis(200));
    let refused = impatient.connect_with(options.clone().host("127.0.0.1").port(port));
    assert!(matches!(refused.await, Err(Error::PoolTimedOut)));

    let unknown = options.database("no_such_database_anywhere");
    let lazy = PgPool::connect_lazy_with(unknown.clone());
    for error in [
        PgPool::connect_with(unknown).await.err(),
        lazy.acquire().await.err(),
        lazy.begin().await.err(),
        sqlx::query("SELECT 1").execute(&lazy).await.err(),
    ] {
        let code = error
            .as_ref()
            .and_then(Error::as_database_error)
            .and_then(|e| e.code());
        assert_eq!(code.as_deref(), Some("3D000"), "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_pool_shows_and_changes_its_options() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    assert_eq!(pool.options().get_max_connections(), 2);
    assert_eq!(
        pool.options().get_acquire_timeout(),
        Duration::from_secs(30)
    );
    let said = format!("{pool:?}");
    assert!(said.starts_with("Pool"), "{said}");

    let options = (*pool.connect_options()).clone();
    pool.set_connect_options(options.application_name("renamed"));
    // The one that is open keeps its name, the next one has the new one.
    let first = pool.acquire().await?;
    let mut second = pool.acquire().await?;
    let name: String = sqlx::query_scalar("SHOW application_name")
        .fetch_one(&mut *second)
        .await?;
    assert_eq!(name, "renamed");
    drop((first, second));
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_connection_is_closed_now_or_on_drop() -> sqlx::Result<()> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut conn: PoolConnection<Postgres> = pool.acquire().await?;
    let first = pid(&mut conn).await?;
    conn.close().await?;
    assert_eq!(pool.size(), 0);

    let mut conn = pool.acquire().await?;
    let second = pid(&mut conn).await?;
    conn.close_on_drop();
    drop(conn);
    eventually("it is closed", Duration::from_secs(10), async || {
        pool.size() == 0
    })
    .await;
    let third = pid(&mut *pool.acquire().await?).await?;
    assert!(first != second && second != third);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_detached_connection_leaves_its_place_and_a_leaked_one_keeps_it() -> sqlx::Result<()> {
    let Some((_db, pool)) = impatient_pool().await else {
        return Ok(());
    };
    let mut detached: PgConnection = pool.acquire().await?.detach();
    assert_eq!(pool.size(), 0);
    let mut leaked: PgConnection = pool.acquire().await?.leak();
    assert_eq!(pool.size(), 1);
    let held = pool.acquire().await?;
    assert!(matches!(pool.acquire().await, Err(Error::PoolTimedOut)));

    assert_ne!(pid(&mut detached).await?, pid(&mut leaked).await?);
    detached.close().await?;
    leaked.close().await?;
    drop(held);
    Ok(())
}

#[tokio::test]
async fn guards_and_pools_are_what_user_code_needs_them_to_be() {
    fn shared<T: Clone + std::fmt::Debug + Send + Sync + Unpin + 'static>() {}
    fn owned<T: std::fmt::Debug + Send + Sync + Unpin + 'static>() {}
    fn borrowed<C: AsRef<PgConnection> + AsMut<PgConnection>>() {}
    shared::<PgPool>();
    shared::<PgPoolOptions>();
    owned::<PoolConnection<Postgres>>();
    owned::<crate::db::Transaction<'static, Postgres>>();
    borrowed::<PoolConnection<Postgres>>();
}
