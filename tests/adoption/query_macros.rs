//! User code: `query!`, `query_as!`, `query_scalar!` and their file forms, checked at compile time
//! against the offline data in `.sqlx/`. No database and no variable is needed to build this.
//!
//! To renew the data after a change of a query: apply `migrations/` to an empty PostgreSQL database,
//! then `DATABASE_URL=postgres://… SQLX_OFFLINE_DIR="$PWD/.sqlx" cargo check --test adoption`. The
//! macros of `social/` are SQLite's and do not compile in that run; they are renewed in the same way
//! with a SQLite file (see there). Each run writes the data of its own queries only.

use crate::db::{PgPool, PgPoolOptions, Transaction, all_back};
use crate::ground;

#[derive(Debug, PartialEq)]
struct Note {
    id: i64,
    body: String,
    stars: Option<i32>,
}

async fn write(pool: &PgPool, body: &str) -> sqlx::Result<i64> {
    let row = sqlx::query!("INSERT INTO notes (body) VALUES ($1) RETURNING id", body)
        .fetch_one(pool)
        .await?;
    Ok(row.id)
}

async fn read(pool: &PgPool, id: i64) -> sqlx::Result<Option<Note>> {
    let mut conn = pool.acquire().await?;
    sqlx::query_as!(Note, "SELECT id, body, stars FROM notes WHERE id = $1", id)
        .fetch_optional(&mut *conn)
        .await
}

async fn rate(
    tx: &mut Transaction<'_, sqlx::Postgres>,
    id: i64,
    stars: i32,
) -> sqlx::Result<Option<i32>> {
    sqlx::query!("UPDATE notes SET stars = $2 WHERE id = $1", id, stars)
        .execute(&mut **tx)
        .await?;
    sqlx::query_scalar!("SELECT stars FROM notes WHERE id = $1", id)
        .fetch_one(&mut **tx)
        .await
}

#[tokio::test]
async fn checked_queries_run_on_the_pool_a_connection_and_a_transaction() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;

    let id = write(&pool, "checked").await?;
    let mut tx = pool.begin().await?;
    assert_eq!(rate(&mut tx, id, 5).await?, Some(5));
    tx.commit().await?;

    let note = read(&pool, id).await?.expect("it was written");
    assert_eq!((note.body.as_str(), note.stars), ("checked", Some(5)));

    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM notes"#)
        .fetch_one(&pool)
        .await?;
    assert_eq!(count, 1);

    let from_file =
        sqlx::query_file_as!(Note, "tests/adoption/queries/note_by_body.sql", "checked")
            .fetch_all(&pool)
            .await?;
    assert_eq!(from_file, [note]);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_checked_query_maps_and_streams() -> sqlx::Result<()> {
    use futures::TryStreamExt;

    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    for body in ["a", "b", "c"] {
        write(&pool, body).await?;
    }
    let bodies: Vec<String> = sqlx::query!("SELECT body FROM notes ORDER BY id")
        .map(|row| row.body.to_uppercase())
        .fetch(&pool)
        .try_collect()
        .await?;
    assert_eq!(bodies, ["A", "B", "C"]);
    all_back(&pool).await;
    Ok(())
}
