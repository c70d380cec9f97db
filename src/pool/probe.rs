//! Asks the server for its transaction state, and heals it.
//!
//! Responsible for questions that need nothing but sqlx-core's `TransactionManager`, because a
//! generic `Drop` knows of no `Executor`. Not responsible for when to ask: see `way_back`.

use sqlx::{Database, Error, SqlStr};
use sqlx_core::transaction::TransactionManager;

/// What was found on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No transaction was open.
    Clean,
    /// A transaction was open, or aborted, behind sqlx's back. It was rolled back.
    Dirty,
}

type Manager<DB> = <DB as Database>::TransactionManager;

/// Rolls back every level that sqlx knows of.
///
/// # Errors
/// What the server answers; the connection is then to be closed.
pub(super) async fn roll_back<DB: Database>(conn: &mut DB::Connection) -> Result<(), Error> {
    while Manager::<DB>::get_transaction_depth(conn) > 0 {
        let before = Manager::<DB>::get_transaction_depth(conn);
        Manager::<DB>::rollback(conn).await?;
        if Manager::<DB>::get_transaction_depth(conn) >= before {
            return Err(Error::Protocol("a rollback did not end its level".into()));
        }
    }
    Ok(())
}

/// Asks the server whether a transaction is open, whatever the client believes, and rolls it back.
///
/// `begin_with("SELECT 1")` is a question with three answers: it succeeds inside of an open
/// transaction, fails with `BeginFailed` outside of one, and with the server's error in an aborted
/// one. Never an unconditional ROLLBACK: on PostgreSQL the clean case would log a warning.
///
/// # Errors
/// When the connection cannot be used; it is then to be closed.
pub(super) async fn settle<DB: Database>(conn: &mut DB::Connection) -> Result<Found, Error> {
    match run::<DB>(conn, "SELECT 1").await {
        Ok(()) => {
            roll_back::<DB>(conn).await?;
            Ok(Found::Dirty)
        }
        Err(Error::BeginFailed) => Ok(Found::Clean),
        Err(Error::Database(_)) => match run::<DB>(conn, "ROLLBACK").await {
            Err(Error::BeginFailed) => Ok(Found::Dirty),
            Err(error) => Err(error),
            Ok(()) => Err(Error::Protocol(
                "a transaction is open after ROLLBACK".into(),
            )),
        },
        Err(error) => Err(error),
    }
}

async fn run<DB: Database>(conn: &mut DB::Connection, sql: &'static str) -> Result<(), Error> {
    Manager::<DB>::begin(conn, Some(SqlStr::from_static(sql))).await
}
