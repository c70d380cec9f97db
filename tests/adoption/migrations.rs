//! User code: `migrate!().run(&pool)`, and the same on guards.

use sqlx::migrate::Migrator;

use crate::db::{PgPool, PgPoolOptions, SqlitePool, SqlitePoolOptions, all_back};
use crate::ground;
use crate::support::TestDb;
use crate::support::db::sqlite_database;

static MIGRATOR: Migrator = sqlx::migrate!("tests/adoption/migrations");

async fn pool() -> Option<(TestDb, PgPool)> {
    let (db, options) = ground::empty_postgres().await?;
    let pool = PgPoolOptions::new().connect_with(options).await;
    Some((db, pool.expect("the server answers")))
}

async fn tables(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1",
    )
    .fetch_all(pool)
    .await
}

#[tokio::test]
async fn migrations_run_on_the_pool_and_a_second_time_do_nothing() -> Result<(), sqlx::Error> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    sqlx::migrate!("tests/adoption/migrations")
        .run(&pool)
        .await?;
    MIGRATOR.run(&pool).await?;
    assert_eq!(tables(&pool).await?, ["_sqlx_migrations", "notes", "tags"]);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn migrations_run_on_a_connection() -> Result<(), sqlx::Error> {
    let Some((_db, pool)) = pool().await else {
        return Ok(());
    };
    let mut conn = pool.acquire().await?;
    MIGRATOR.run_to(1, &mut *conn).await?;
    MIGRATOR.run(&mut conn).await?;
    drop(conn);
    assert_eq!(tables(&pool).await?, ["_sqlx_migrations", "notes", "tags"]);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn migrations_run_on_sqlite() -> Result<(), sqlx::Error> {
    let db = sqlite_database().await;
    let pool: SqlitePool = SqlitePoolOptions::new().connect(&db.url).await?;
    sqlx::migrate!("tests/adoption/social/migrations")
        .run(&pool)
        .await?;
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM user")
        .fetch_one(&pool)
        .await?;
    assert_eq!(users, 0);
    all_back(&pool).await;
    Ok(())
}
