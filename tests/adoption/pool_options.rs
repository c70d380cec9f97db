//! User code: every setter and getter of sqlx's `PoolOptions`, and the four ways to end it.

use std::time::Duration;

use sqlx::Postgres;

use crate::db::{PgPool, PgPoolOptions, PoolOptions, SqlitePoolOptions, all_back};
use crate::ground;

#[test]
fn options_read_back_what_was_set() {
    let level = || "debug".parse().expect("a level");
    let options = PoolOptions::<Postgres>::new()
        .max_connections(7)
        .min_connections(3)
        .acquire_timeout(Duration::from_secs(4))
        .acquire_slow_threshold(Duration::from_secs(1))
        .acquire_slow_level(level())
        .acquire_time_level(level())
        .max_lifetime(Duration::from_secs(60))
        .idle_timeout(Duration::from_secs(30))
        .test_before_acquire(false);
    assert_eq!(options.get_max_connections(), 7);
    assert_eq!(options.get_min_connections(), 3);
    assert_eq!(options.get_acquire_timeout(), Duration::from_secs(4));
    assert_eq!(options.get_acquire_slow_threshold(), Duration::from_secs(1));
    assert_eq!(options.get_max_lifetime(), Some(Duration::from_secs(60)));
    assert_eq!(options.get_idle_timeout(), Some(Duration::from_secs(30)));
    assert!(!options.get_test_before_acquire());

    let options = options.clone().max_lifetime(None).idle_timeout(None);
    assert_eq!(options.get_max_lifetime(), None);
    assert_eq!(options.get_idle_timeout(), None);
    assert_eq!(options.get_max_connections(), 7);
    assert!(format!("{options:?}").contains("max_connections: 7"));
}

#[test]
fn options_begin_where_sqlx_begins() {
    let ours = PgPoolOptions::default();
    let theirs = sqlx::postgres::PgPoolOptions::default();
    assert_eq!(ours.get_max_connections(), theirs.get_max_connections());
    assert_eq!(ours.get_min_connections(), theirs.get_min_connections());
    assert_eq!(ours.get_acquire_timeout(), theirs.get_acquire_timeout());
    assert_eq!(ours.get_max_lifetime(), theirs.get_max_lifetime());
    assert_eq!(ours.get_idle_timeout(), theirs.get_idle_timeout());
    assert_eq!(
        ours.get_test_before_acquire(),
        theirs.get_test_before_acquire()
    );
    assert_eq!(
        ours.get_acquire_slow_threshold(),
        theirs.get_acquire_slow_threshold()
    );
}

#[tokio::test]
async fn options_end_in_a_pool_in_four_ways() -> sqlx::Result<()> {
    let (db, connect) = ground::sqlite().await;
    let options = SqlitePoolOptions::new().max_connections(3);
    let pools = [
        options.clone().connect_with(connect.clone()).await?,
        options.clone().connect(&db.url).await?,
        options.clone().connect_lazy(&db.url)?,
        options.connect_lazy_with(connect),
    ];
    for pool in pools {
        let one: i64 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await?;
        assert_eq!((one, pool.options().get_max_connections()), (1, 3));
        all_back(&pool).await;
        pool.close().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_pool_opens_the_connections_it_was_asked_to_keep() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new()
        .min_connections(2)
        .connect_with(options)
        .await?;
    assert_eq!(pool.size(), 2);
    all_back(&pool).await;
    pool.close().await;
    Ok(())
}
