//! User code: statements put together with `QueryBuilder`.

use sqlx::{Postgres, QueryBuilder};

use crate::db::{PgPool, PgPoolOptions, Transaction, all_back};
use crate::ground;

async fn write_all(
    tx: &mut Transaction<'_, Postgres>,
    notes: &[(&str, Option<i32>)],
) -> sqlx::Result<u64> {
    let mut insert = QueryBuilder::<Postgres>::new("INSERT INTO notes (body, stars) ");
    insert.push_values(notes, |mut row, (body, stars)| {
        row.push_bind(*body).push_bind(*stars);
    });
    let done = insert.build().execute(&mut **tx).await?;
    Ok(done.rows_affected())
}

async fn find(
    pool: &PgPool,
    at_least: Option<i32>,
    like: Option<&str>,
) -> sqlx::Result<Vec<String>> {
    let mut select = QueryBuilder::<Postgres>::new("SELECT body FROM notes WHERE true");
    if let Some(stars) = at_least {
        select.push(" AND stars >= ").push_bind(stars);
    }
    if let Some(like) = like {
        select.push(" AND body LIKE ").push_bind(like.to_owned());
    }
    select.push(" ORDER BY body");
    select.build_query_scalar().fetch_all(pool).await
}

#[tokio::test]
async fn built_statements_run_on_the_pool_and_in_a_transaction() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;

    let mut tx = pool.begin().await?;
    let notes = [
        ("ale", Some(1)),
        ("bee", Some(4)),
        ("cow", None),
        ("bat", Some(5)),
    ];
    assert_eq!(write_all(&mut tx, &notes).await?, 4);
    tx.commit().await?;

    assert_eq!(find(&pool, None, None).await?, ["ale", "bat", "bee", "cow"]);
    assert_eq!(find(&pool, Some(4), None).await?, ["bat", "bee"]);
    assert_eq!(find(&pool, Some(4), Some("%t")).await?, ["bat"]);
    all_back(&pool).await;
    Ok(())
}
