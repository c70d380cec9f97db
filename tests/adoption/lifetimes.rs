//! User code: signatures that lean on the lifetimes of sqlx's types.

use sqlx::{Acquire, Executor, Postgres};

use crate::db::{PgPool, PgPoolOptions, PgTransaction, Transaction, all_back};
use crate::ground;

/// A transaction that owns its connection serves where a shorter one is asked for.
fn shortened<'a>(tx: Transaction<'static, Postgres>) -> Transaction<'a, Postgres> {
    tx
}

/// A context that borrows somebody's transaction, whatever that borrows itself.
struct Context<'a, 'tx> {
    tx: &'a mut Transaction<'tx, Postgres>,
}

impl<'tx> Context<'_, 'tx> {
    async fn write(&mut self, body: &str) -> sqlx::Result<&mut Transaction<'tx, Postgres>> {
        sqlx::query("INSERT INTO notes (body) VALUES ($1)")
            .bind(body)
            .execute(&mut **self.tx)
            .await?;
        Ok(self.tx)
    }
}

/// An executor that is used twice: of sqlx's executors, only the reference to a pool can be.
async fn write_and_count<'e, E>(executor: E) -> sqlx::Result<i64>
where
    E: Executor<'e, Database = Postgres> + Copy,
{
    executor
        .execute("INSERT INTO notes (body) VALUES ('copied')")
        .await?;
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(executor)
        .await
}

/// What is begun here may outlive what it was begun from.
async fn begin_for_long(
    from: impl Acquire<'static, Database = Postgres>,
) -> sqlx::Result<sqlx::Transaction<'static, Postgres>> {
    from.begin().await
}

#[tokio::test]
async fn transactions_are_shortened_and_borrowed() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    let mut tx: PgTransaction<'_> = shortened(pool.begin().await?);
    let mut context = Context { tx: &mut tx };
    context.write("one").await?;
    let again = context.write("two").await?;
    again
        .execute("INSERT INTO notes (body) VALUES ('three')")
        .await?;
    tx.commit().await?;
    assert_eq!(write_and_count(&pool).await?, 4);
    all_back(&pool).await;
    Ok(())
}

#[tokio::test]
async fn a_transaction_outlives_the_handle_it_was_begun_from() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    let pool: PgPool = PgPoolOptions::new().connect_with(options).await?;
    let (mut ours, mut theirs) = {
        let handle = pool.clone();
        (handle.begin().await?, begin_for_long(&handle).await?)
    };
    ours.execute("INSERT INTO notes (body) VALUES ('ours')")
        .await?;
    theirs
        .execute("INSERT INTO notes (body) VALUES ('theirs')")
        .await?;
    tokio::spawn(async move {
        ours.commit().await?;
        theirs.commit().await
    })
    .await
    .expect("the task ends")?;
    assert_eq!(write_and_count(&pool).await?, 3);
    all_back(&pool).await;
    Ok(())
}
