//! User code that does not compile unchanged, because it asks a type parameter, and not a coercion,
//! to find sqlx's connection behind a guard. Each is written here in a way that is valid with sqlx
//! and with this crate, so that adopting it may be done in two steps:
//!
//! | with sqlx alone | with both |
//! |---|---|
//! | `f(&mut *conn)` where `f<C: Connection>(c: &mut C)`, or any trait implemented for `PgConnection` | `f(conn.as_mut())` |
//! | `f(conn)` where `f(c: impl DerefMut<Target = PgConnection>)` | `f(c: impl AsMut<PgConnection>)` |
//! | `tx.as_deref_mut()` of an `Option<Transaction>` as an `Option<&mut PgConnection>` | `tx.as_mut().map(AsMut::as_mut)` |
//! | a transaction of the *trait* method `Acquire::begin` (it is sqlx's own) for a `&mut Transaction` | take `&mut PgConnection` there |
//! | `&mut *guard` as an executor where the database is a parameter | `guard.as_mut()`, or see `generic_database` |

use sqlx::{Acquire, Connection, PgConnection, Postgres};

use crate::db::{PgPool, PgPoolOptions, all_back};
use crate::ground;

async fn ping<C: Connection<Database = Postgres>>(conn: &mut C) -> sqlx::Result<()> {
    conn.ping().await
}

/// A trait of the user's, for sqlx's connection.
trait Notes {
    async fn add(&mut self, body: &str) -> sqlx::Result<()>;
}

impl Notes for PgConnection {
    async fn add(&mut self, body: &str) -> sqlx::Result<()> {
        sqlx::query("INSERT INTO notes (body) VALUES ($1)")
            .bind(body)
            .execute(self)
            .await?;
        Ok(())
    }
}

async fn add_two<N: Notes>(notes: &mut N) -> sqlx::Result<()> {
    notes.add("one").await?;
    notes.add("two").await
}

async fn keep(mut conn: impl AsMut<PgConnection>) -> sqlx::Result<()> {
    conn.as_mut().add("kept").await
}

async fn maybe(conn: Option<&mut PgConnection>) -> sqlx::Result<()> {
    match conn {
        Some(conn) => conn.add("maybe").await,
        None => Ok(()),
    }
}

async fn add_in(tx: &mut PgConnection) -> sqlx::Result<()> {
    tx.add("in a transaction").await
}

async fn add_in_one_of<'a>(from: impl Acquire<'a, Database = Postgres>) -> sqlx::Result<()> {
    let mut tx = from.begin().await?;
    add_in(&mut tx).await?;
    tx.commit().await
}

#[tokio::test]
async fn the_spelling_that_both_understand_does_the_same() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    let mut conn = pool.acquire().await?;
    ping(conn.as_mut()).await?;
    add_two(conn.as_mut()).await?;
    // A method needs no other spelling: it is looked up through every deref.
    conn.add("by a method").await?;
    keep(&mut conn).await?;
    keep(conn).await?;

    let mut tx = Some(pool.begin().await?);
    maybe(tx.as_mut().map(AsMut::as_mut)).await?;
    maybe(None).await?;
    if let Some(mut tx) = tx {
        add_in(&mut tx).await?;
        tx.commit().await?;
    }
    add_in_one_of(&pool).await?;

    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(&pool)
        .await?;
    assert_eq!(count, 8);
    all_back(&pool).await;
    Ok(())
}
