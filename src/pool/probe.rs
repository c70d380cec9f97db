//! Asks the server for its transaction state, and heals it.
//!
//! Responsible for questions that need nothing but sqlx-core's `TransactionManager`, because a
//! generic `Drop` knows of no `Executor`. Not responsible for when to ask: see `way_back`.

use sqlx::{Connection, Database, Error, SqlStr};
use sqlx_core::transaction::TransactionManager;

use super::witness::{self, Server};

/// What was found on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No transaction was open.
    Clean,
    /// A transaction was open, or aborted, behind sqlx's back. It was rolled back.
    Dirty,
}

type Manager<DB> = <DB as Database>::TransactionManager;

fn depth<DB: Database>(conn: &DB::Connection) -> usize {
    Manager::<DB>::get_transaction_depth(conn)
}

/// So many answers may be waiting on a connection; more, and it is given up.
const ANSWERS: usize = 64;

/// What happened on a connection since its answers were last known to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// Every statement was seen, and seen to end.
    Seen,
    /// One that was seen was dropped in flight.
    Cut,
    /// It was lent out: anything.
    Unseen,
}

/// Reads every answer that is still on its way, and makes sure that none is left.
///
/// The answer to something that was cut may be an error: it belongs to the cut statement, and taken
/// for the answer to a question of ours it would mislead.
///
/// # Errors
/// When the connection cannot be used; it is then to be closed.
pub(super) async fn drain<DB: Database>(
    conn: &mut DB::Connection,
    past: Past,
) -> Result<(), Error> {
    for _ in 0..ANSWERS {
        match conn.flush().await {
            Ok(()) => return in_step::<DB>(conn, past).await,
            Err(Error::Database(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Protocol("too many answers are waiting".into()))
}

/// Asks for a value and compares it: without this, one answer could be taken for another, by us or
/// by the next borrower. sqlx counts the answers that it expects, but MariaDB's driver not those to a
/// prepare that was cut, and PostgreSQL's not those to a COPY.
async fn in_step<DB: Database>(conn: &mut DB::Connection, past: Past) -> Result<(), Error> {
    const SAID: i64 = 7_240_613_905;
    let sql = match (Server::of::<DB>(conn), past) {
        // What was queued is done by another thread: this one waits for it.
        (Server::Sqlite, _) => return conn.ping().await,
        (Server::MySql, Past::Cut | Past::Unseen) => "SELECT CAST(7240613905 AS SIGNED)",
        (Server::Postgres, Past::Unseen) => "SELECT 7240613905::int8",
        _ => return Ok(()),
    };
    match witness::number::<DB>(conn, sql).await {
        Ok(Some(SAID)) => Ok(()),
        // Asked again when it is rolled back.
        Err(error) if witness::is_of_aborted(&error) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(Error::Protocol("the connection is out of step".into())),
    }
}

/// Settles a connection of which nothing is known.
///
/// # Errors
/// When the connection cannot be used; it is then to be closed.
pub(super) async fn settle<DB: Database>(conn: &mut DB::Connection) -> Result<Found, Error> {
    drain::<DB>(conn, Past::Unseen).await?;
    if conn.is_in_transaction() {
        roll_back::<DB>(conn, Past::Unseen).await?;
        return Ok(Found::Dirty);
    }
    let standing = standing::<DB>(conn).await?;
    heal::<DB>(conn, standing, Past::Unseen).await
}

/// Rolls back every level that sqlx knows of.
///
/// # Errors
/// What the server answers; the connection is then to be closed.
pub(super) async fn roll_back<DB: Database>(
    conn: &mut DB::Connection,
    past: Past,
) -> Result<(), Error> {
    if Server::of::<DB>(conn) != Server::Sqlite && depth::<DB>(conn) > 1 {
        // A savepoint may be gone; only the outermost ROLLBACK has to succeed.
        while depth::<DB>(conn) > 1 {
            Manager::<DB>::start_rollback(conn);
        }
        drain::<DB>(conn, Past::Cut).await?;
    }
    while depth::<DB>(conn) > 0 {
        let before = depth::<DB>(conn);
        Manager::<DB>::rollback(conn).await?;
        if depth::<DB>(conn) >= before {
            return Err(Error::Protocol("a rollback did not end its level".into()));
        }
    }
    match past {
        // An aborted transaction has no answer but its own error: now there is one.
        Past::Unseen => in_step::<DB>(conn, past).await,
        Past::Seen | Past::Cut => Ok(()),
    }
}

/// What the server says of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    None,
    /// Open; sqlx counts it from now on.
    Open,
    Aborted,
}

/// Asks the server whether a transaction is open, when sqlx believes that none is.
///
/// `begin_with("SELECT 1")` is a question with three answers: it succeeds inside of an open
/// transaction, fails with `BeginFailed` outside of one, and with the server's error in an aborted
/// one.
///
/// # Errors
/// When the connection cannot be used; it is then to be closed.
pub(super) async fn standing<DB: Database>(conn: &mut DB::Connection) -> Result<Standing, Error> {
    match run::<DB>(conn, "SELECT 1").await {
        Ok(()) => Ok(Standing::Open),
        Err(Error::BeginFailed) => Ok(Standing::None),
        Err(Error::Database(_)) => Ok(Standing::Aborted),
        Err(error) => Err(error),
    }
}

/// Rolls back what [`standing`] found. Never an unconditional ROLLBACK: on PostgreSQL the clean case
/// would log a warning.
///
/// # Errors
/// When the connection cannot be used; it is then to be closed.
pub(super) async fn heal<DB: Database>(
    conn: &mut DB::Connection,
    standing: Standing,
    past: Past,
) -> Result<Found, Error> {
    match standing {
        Standing::None => return Ok(Found::Clean),
        Standing::Open => roll_back::<DB>(conn, past).await?,
        Standing::Aborted => match run::<DB>(conn, "ROLLBACK").await {
            Err(Error::BeginFailed) if past == Past::Unseen => in_step::<DB>(conn, past).await?,
            Err(Error::BeginFailed) => {}
            Err(error) => return Err(error),
            Ok(()) => {
                return Err(Error::Protocol(
                    "a transaction is open after ROLLBACK".into(),
                ));
            }
        },
    }
    Ok(Found::Dirty)
}

async fn run<DB: Database>(conn: &mut DB::Connection, sql: &'static str) -> Result<(), Error> {
    Manager::<DB>::begin(conn, Some(SqlStr::from_static(sql))).await
}
