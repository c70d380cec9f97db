//! What a server can be asked that sqlx's generic traits cannot ask.
//!
//! Responsible for finding the concrete connection behind `DB::Connection`, and for small questions
//! with a number for an answer. A generic `Drop` knows of no `Executor`, so the type is found at run
//! time: `DB::Connection` is `'static`. Not responsible for when to ask: see `way_back`.

use std::any::Any;

mod mysql;
mod postgres;
mod side;
mod testify;

pub(super) use self::side::ask;
pub(super) use self::testify::testify;
use sqlx::{Database, Error, Executor, Row, SqlSafeStr};

/// Which server is at the other end; `Any` is whatever it stands in front of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Postgres,
    MySql,
    Sqlite,
    /// A driver that is not known here.
    Other,
}

impl Server {
    fn named(name: &str) -> Self {
        match name {
            "PostgreSQL" => Self::Postgres,
            "MySQL" => Self::MySql,
            "SQLite" => Self::Sqlite,
            _ => Self::Other,
        }
    }

    pub(super) fn of<DB: Database>(conn: &DB::Connection) -> Self {
        let conn: &dyn Any = conn;
        #[cfg(feature = "any")]
        if let Some(any) = conn.downcast_ref::<sqlx::AnyConnection>() {
            return Self::named(any.backend_name());
        }
        let _ = conn;
        Self::named(DB::NAME)
    }
}

/// Runs `sql` as plain text and answers the first column of its first row.
///
/// `Ok(None)` when there is no row, it is NULL, or the driver is not known here.
///
/// # Errors
/// What the server answers, or what the connection fails with.
pub(super) async fn number<DB: Database>(
    conn: &mut DB::Connection,
    sql: impl SqlSafeStr,
) -> Result<Option<i64>, Error> {
    let sql = sql.into_sql_str();
    let conn: &mut (dyn Any + Send) = conn;
    macro_rules! ask {
        ($feature:literal, $conn:ty) => {
            #[cfg(feature = $feature)]
            if let Some(conn) = conn.downcast_mut::<$conn>() {
                return match Executor::fetch_optional(conn, sql).await? {
                    Some(row) => row.try_get::<Option<i64>, _>(0),
                    None => Ok(None),
                };
            }
        };
    }
    ask!("postgres", sqlx::PgConnection);
    ask!("mysql", sqlx::MySqlConnection);
    ask!("sqlite", sqlx::SqliteConnection);
    ask!("any", sqlx::AnyConnection);
    let _ = (conn, sql);
    Ok(None)
}

/// Whether the transaction is aborted: PostgreSQL answers every statement in it with 25P02.
///
/// # Errors
/// What else the connection fails with.
pub(super) async fn is_aborted<DB: Database>(conn: &mut DB::Connection) -> Result<bool, Error> {
    match number::<DB>(conn, "SELECT 1::int8").await {
        Ok(_) => Ok(false),
        Err(error) if is_of_aborted(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether it is what PostgreSQL answers to everything in an aborted transaction.
pub(super) fn is_of_aborted(error: &Error) -> bool {
    matches!(error, Error::Database(error) if error.code().as_deref() == Some("25P02"))
}

/// Whether PostgreSQL has a transaction open. As plain text: asked with a prepared statement, the
/// answer is always yes.
///
/// # Errors
/// What the connection fails with.
pub(super) async fn is_in_transaction<DB: Database>(
    conn: &mut DB::Connection,
) -> Result<bool, Error> {
    match number::<DB>(conn, "SELECT (now() <> statement_timestamp())::int::int8").await {
        Ok(open) => Ok(open == Some(1)),
        Err(Error::Database(error)) if error.code().as_deref() == Some("25P02") => Ok(true),
        Err(error) => Err(error),
    }
}

/// The server's own name of the connection's backend, by which another one can cancel it.
///
/// # Errors
/// What the connection fails with.
pub(super) async fn backend<DB: Database>(conn: &mut DB::Connection) -> Result<Option<i64>, Error> {
    match Server::of::<DB>(conn) {
        Server::Postgres => number::<DB>(conn, "SELECT pg_backend_pid()::int8").await,
        Server::MySql => number::<DB>(conn, "SELECT CAST(CONNECTION_ID() AS SIGNED)").await,
        Server::Sqlite | Server::Other => sqlx::Connection::ping(conn).await.map(|()| None),
    }
}

/// Whether the open transaction has written anything, by the server's word. `before`: SQLite's count
/// of changes when it began. `None` when the server cannot say.
pub(super) async fn has_written<DB: Database>(
    conn: &mut DB::Connection,
    before: Option<i64>,
) -> Option<bool> {
    match Server::of::<DB>(conn) {
        Server::Postgres => {
            let sql = "SELECT (pg_current_xact_id_if_assigned() IS NOT NULL)::int::int8";
            Some(number::<DB>(conn, sql).await.ok()? == Some(1))
        }
        Server::MySql => {
            let sql = "SELECT CAST(trx_rows_modified AS SIGNED) FROM information_schema.innodb_trx \
                       WHERE trx_mysql_thread_id = CONNECTION_ID()";
            // The server renews this table only when nobody has read it for 0.1 s.
            let wait = "SELECT CAST(SLEEP(0.11) AS SIGNED)";
            if number::<DB>(conn, sql)
                .await
                .ok()?
                .is_some_and(|rows| rows > 0)
            {
                return Some(true);
            }
            number::<DB>(conn, wait).await.ok()?;
            Some(
                number::<DB>(conn, sql)
                    .await
                    .ok()?
                    .is_some_and(|rows| rows > 0),
            )
        }
        Server::Sqlite => Some(changes::<DB>(conn).await? > before?),
        Server::Other => None,
    }
}

/// SQLite's count of rows changed by this connection since it was opened.
pub(super) async fn changes<DB: Database>(conn: &mut DB::Connection) -> Option<i64> {
    number::<DB>(conn, "SELECT total_changes()").await.ok()?
}

/// How many rows a statement changed; on PostgreSQL also how many it read.
pub(super) fn rows_affected<DB: Database>(done: &DB::QueryResult) -> u64 {
    let done: &dyn Any = done;
    macro_rules! ask {
        ($feature:literal, $result:ty) => {
            #[cfg(feature = $feature)]
            if let Some(done) = done.downcast_ref::<$result>() {
                return done.rows_affected();
            }
        };
    }
    ask!("postgres", sqlx::postgres::PgQueryResult);
    ask!("mysql", sqlx::mysql::MySqlQueryResult);
    ask!("sqlite", sqlx::sqlite::SqliteQueryResult);
    ask!("any", sqlx::any::AnyQueryResult);
    let _ = done;
    0
}
