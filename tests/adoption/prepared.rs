//! User code: statements prepared once and used many times.

use sqlx::postgres::PgStatement;
use sqlx::{Column, Executor, SqlSafeStr, Statement, TypeInfo};

use crate::db::{PgPool, PgPoolOptions, all_back};
use crate::ground;

async fn insert<'c>(
    executor: impl Executor<'c, Database = sqlx::Postgres>,
    statement: &PgStatement,
    body: &str,
) -> sqlx::Result<i64> {
    statement
        .query_scalar()
        .bind(body)
        .fetch_one(executor)
        .await
}

#[tokio::test]
async fn a_prepared_statement_runs_on_every_executor() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    let sql = "INSERT INTO notes (body) VALUES ($1) RETURNING id";

    let by_pool = pool.prepare(sql.into_sql_str()).await?;
    assert_eq!(by_pool.columns()[0].name(), "id");

    let mut conn = pool.acquire().await?;
    let by_conn = conn.prepare(sql.into_sql_str()).await?;
    let first = insert(&mut *conn, &by_conn, "one").await?;
    drop(conn);

    let mut tx = pool.begin().await?;
    let text = by_conn.columns()[0].type_info().clone();
    assert_eq!(text.name(), "INT8");
    let by_tx = tx.prepare_with(sql.into_sql_str(), &[]).await?;
    let second = insert(&mut *tx, &by_tx, "two").await?;
    let third = insert(&mut *tx, &by_pool, "three").await?;
    tx.commit().await?;
    let fourth = insert(&pool, &by_tx, "four").await?;

    assert_eq!([first, second, third, fourth], [1, 2, 3, 4]);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_query_that_is_not_kept_leaves_no_statement_behind() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    let mut conn = pool.acquire().await?;
    for _ in 0..3 {
        sqlx::query("SELECT body FROM notes WHERE id = $1")
            .bind(1_i64)
            .persistent(false)
            .fetch_all(&mut *conn)
            .await?;
    }
    let kept: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%notes%'",
    )
    .persistent(false)
    .fetch_one(&mut *conn)
    .await?;
    assert_eq!(kept, 0);
    drop(conn);
    all_back(&pool).await;
    Ok(())
}
