//! User code: functions generic over the database itself.
//!
//! The only place where adoption may cost a character: `&mut *guard` is the connection with sqlx and
//! one link before it with this crate, whose `Executor` exists per database. Code that does not name
//! its database writes `&mut **guard`, which `db::lend!` stands for here. The forms below that leave
//! the loan to the compiler (`guard.as_mut()`, an argument of type `&mut DB::Connection`) are the same
//! for both.

use sqlx::{ColumnIndex, Database, Decode, Executor, IntoArguments, Type};

use crate::db::{
    MySqlPoolOptions, PgPoolOptions, Pool, PoolConnection, SqlitePoolOptions, Transaction,
    all_back, lend,
};
use crate::ground;

async fn count<DB>(pool: &Pool<DB>) -> sqlx::Result<i64>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'r> i64: Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
    DB::Arguments: IntoArguments<DB>,
{
    sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(pool)
        .await
}

async fn write<DB>(conn: &mut DB::Connection) -> sqlx::Result<()>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    conn.execute("INSERT INTO notes (body) VALUES ('generic')")
        .await?;
    Ok(())
}

async fn write_on<DB>(conn: &mut PoolConnection<DB>) -> sqlx::Result<()>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    write::<DB>(conn).await?;
    write::<DB>(conn.as_mut()).await
}

async fn write_in<DB>(mut tx: Transaction<'_, DB>) -> sqlx::Result<()>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
{
    write::<DB>(&mut tx).await?;
    sqlx::query("INSERT INTO notes (body) VALUES ('lent')")
        .execute(lend!(tx))
        .await?;
    tx.commit().await
}

async fn all_shapes<DB>(pool: &Pool<DB>) -> sqlx::Result<()>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'r> i64: Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
    DB::Arguments: IntoArguments<DB>,
{
    let mut conn = pool.acquire().await?;
    write_on(&mut conn).await?;
    drop(conn);
    write_in(pool.begin().await?).await?;
    assert_eq!(count(pool).await?, 4);
    all_back(pool).await;
    Ok(())
}

#[tokio::test]
async fn code_that_does_not_name_its_database_runs_on_postgres() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::postgres().await else {
        return Ok(());
    };
    all_shapes(&PgPoolOptions::new().connect_with(options).await?).await
}

#[tokio::test]
async fn code_that_does_not_name_its_database_runs_on_mariadb() -> sqlx::Result<()> {
    let Some((_db, options)) = ground::mariadb().await else {
        return Ok(());
    };
    all_shapes(&MySqlPoolOptions::new().connect_with(options).await?).await
}

#[tokio::test]
async fn code_that_does_not_name_its_database_runs_on_sqlite() -> sqlx::Result<()> {
    let (_db, options) = ground::sqlite().await;
    all_shapes(&SqlitePoolOptions::new().connect_with(options).await?).await
}
