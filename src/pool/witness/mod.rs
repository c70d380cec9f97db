//! What a server can be asked that sqlx's generic traits cannot ask.
//!
//! Responsible for finding the concrete connection behind `DB::Connection`, and for small questions
//! with a number for an answer. A generic `Drop` knows of no `Executor`, so the type is found at run
//! time: `DB::Connection` is `'static`. Not responsible for when to ask: see `way_back`.

use std::any::Any;

use sqlx::{Database, Error, Executor, Row};

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
    sql: &'static str,
) -> Result<Option<i64>, Error> {
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
        Err(Error::Database(error)) if error.code().as_deref() == Some("25P02") => Ok(true),
        Err(error) => Err(error),
    }
}
