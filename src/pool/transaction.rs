//! Our own transaction, because sqlx's does not keep its promise.
//!
//! Responsible for begin, commit and rollback, and for what a drop at any point of them leaves to
//! the way back. Works on sqlx-core's `TransactionManager`, so that raw loans and savepoints of
//! sqlx count the same levels. Not responsible for healing: see `way_back`.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};

use sqlx::{Database, Error, SqlStr};
use sqlx_core::transaction::TransactionManager;

use super::conn::Conn;
use crate::registry::{Ending, Use};
use crate::site::CallSite;

/// A transaction, or a savepoint within one. Rolled back on drop, guaranteed.
///
/// Ends with [`commit`](Self::commit), [`rollback`](Self::rollback) or [`discard`](Self::discard);
/// in every other case it is rolled back, and nobody gets the connection before that is done.
pub struct Transaction<'c, DB: Database> {
    conn: Bound<'c, DB>,
    state: State,
}

enum Bound<'c, DB: Database> {
    /// By `begin` on a pool: the connection goes home with the transaction.
    Owned(Conn<DB>),
    /// By `begin` on a connection or a transaction, which keeps it.
    Lent(&'c mut Conn<DB>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Beginning,
    Open,
    /// COMMIT or ROLLBACK is in flight.
    Ending,
    Ended,
}

/// The transaction was rolled back when a nested `begin` on it was cancelled or refused.
///
/// sqlx 0.9 rolls the *outer* transaction back then and goes on in autocommit. leaktrace refuses
/// further statements and the commit instead, with this as the source of an
/// [`sqlx::Error::AnyDriverError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a nested begin was cancelled or refused and took this transaction with it: nothing of it is saved; begin again"
)]
pub struct DoomedTransaction;

impl DoomedTransaction {
    pub(super) fn error() -> Error {
        Error::AnyDriverError(Box::new(DoomedTransaction))
    }
}

type Manager<DB> = <DB as Database>::TransactionManager;

impl<DB: Database> Transaction<'static, DB> {
    pub(super) async fn start_owned(conn: Conn<DB>, sql: Option<SqlStr>) -> Result<Self, Error> {
        Self::start(Bound::Owned(conn), sql).await
    }
}

impl<'c, DB: Database> Transaction<'c, DB> {
    pub(super) async fn start_lent(
        conn: &'c mut Conn<DB>,
        sql: Option<SqlStr>,
    ) -> Result<Self, Error> {
        Self::start(Bound::Lent(conn), sql).await
    }

    /// # Cancel safety
    /// The guard exists before the first await point: whatever was sent is settled by its drop.
    async fn start(conn: Bound<'c, DB>, sql: Option<SqlStr>) -> Result<Self, Error> {
        let mut tx = Self {
            conn,
            state: State::Beginning,
        };
        if tx.conn.conduct.doomed {
            tx.state = State::Ended;
            return Err(DoomedTransaction::error());
        }
        let outer = tx.depth();
        // On PostgreSQL and SQLite a nested begin that does not succeed rolls the outer one back.
        tx.conn.conduct.doomed = outer > 0;
        tx.conn.cell().doing(Use::Begin);
        let begun = Manager::<DB>::begin(tx.conn.raw_mut(), sql).await;
        let depth = tx.depth();
        match begun {
            Ok(()) => {
                tx.conn.conduct.doomed = false;
                tx.state = State::Open;
                tx.conn.cell().did(Use::Begin, Ending::Succeeded, depth);
                Ok(tx)
            }
            Err(error) => {
                tx.conn.conduct.doomed = outer > 0 && depth != outer;
                tx.state = State::Ended;
                tx.conn.cell().did(Use::Begin, Ending::Failed, depth);
                Err(error)
            }
        }
    }

    fn depth(&self) -> usize {
        Manager::<DB>::get_transaction_depth(self.conn.raw())
    }

    /// For the executor: a statement follows whose line is not known.
    #[cfg(any(
        feature = "postgres",
        feature = "mysql",
        feature = "sqlite",
        feature = "any"
    ))]
    pub(super) fn executor(&mut self) -> &mut Conn<DB> {
        &mut self.conn
    }

    /// Commits, or releases the savepoint.
    ///
    /// # Errors
    /// What the server answers; [`DoomedTransaction`] when nothing could be saved.
    ///
    /// # Cancel safety
    /// Not cancel safe, as no commit is: dropped in flight, the data may or may not be there. The
    /// next borrower's connection is clean in either case.
    pub async fn commit(mut self) -> Result<(), Error> {
        if self.conn.conduct.doomed {
            return Err(DoomedTransaction::error());
        }
        self.state = State::Ending;
        self.conn.cell().doing(Use::Commit);
        let ended = Manager::<DB>::commit(self.conn.raw_mut()).await;
        self.ended(Use::Commit, ended)
    }

    /// Rolls back now, to the savepoint if it is one.
    ///
    /// # Errors
    /// What the server answers. The way back rolls back in any case.
    pub async fn rollback(mut self) -> Result<(), Error> {
        self.state = State::Ending;
        self.conn.cell().doing(Use::Rollback);
        let ended = Manager::<DB>::rollback(self.conn.raw_mut()).await;
        self.ended(Use::Rollback, ended)
    }

    fn ended(&mut self, what: Use, ended: Result<(), Error>) -> Result<(), Error> {
        let depth = self.depth();
        let ending = match ended {
            Ok(()) => Ending::Succeeded,
            Err(_) => Ending::Failed,
        };
        self.conn.cell().did(what, ending, depth);
        if ended.is_ok() {
            self.state = State::Ended;
        }
        ended
    }

    /// Rolls back on purpose, without waiting: what a drop does, but never reported.
    pub fn discard(self) {
        drop(self);
    }

    /// Begins a savepoint.
    ///
    /// # Errors
    /// What `SAVEPOINT` fails with.
    ///
    /// # Cancel safety
    /// Dropped in flight or refused by the server, it dooms this transaction: see
    /// [`DoomedTransaction`].
    #[track_caller]
    pub fn begin(&mut self) -> impl Future<Output = Result<Transaction<'_, DB>, Error>> + Send {
        self.conn.begin()
    }
}

impl<DB: Database> Deref for Bound<'_, DB> {
    type Target = Conn<DB>;

    fn deref(&self) -> &Conn<DB> {
        match self {
            Bound::Owned(conn) => conn,
            Bound::Lent(conn) => conn,
        }
    }
}

impl<DB: Database> DerefMut for Bound<'_, DB> {
    fn deref_mut(&mut self) -> &mut Conn<DB> {
        match self {
            Bound::Owned(conn) => conn,
            Bound::Lent(conn) => conn,
        }
    }
}

impl<DB: Database> Deref for Transaction<'_, DB> {
    type Target = Conn<DB>;

    fn deref(&self) -> &Conn<DB> {
        &self.conn
    }
}

impl<DB: Database> DerefMut for Transaction<'_, DB> {
    /// Remembers the calling line: the statement that follows came from there.
    #[track_caller]
    fn deref_mut(&mut self) -> &mut Conn<DB> {
        self.conn.cell().borrowed(CallSite::caller());
        &mut self.conn
    }
}

impl<DB: Database> AsRef<DB::Connection> for Transaction<'_, DB> {
    fn as_ref(&self) -> &DB::Connection {
        self.conn.as_ref()
    }
}

impl<DB: Database> AsMut<DB::Connection> for Transaction<'_, DB> {
    #[track_caller]
    fn as_mut(&mut self) -> &mut DB::Connection {
        self.conn.as_mut()
    }
}

impl<DB: Database> fmt::Debug for Transaction<'_, DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("conn", &*self.conn)
            .field("state", &self.state)
            .finish()
    }
}

impl<DB: Database> Drop for Transaction<'_, DB> {
    fn drop(&mut self) {
        let level = self.depth();
        match (self.state, &mut self.conn) {
            (State::Ended, _) => {}
            // Nothing that sqlx knows of is open; the way back asks the server.
            (State::Beginning, conn) => conn.cell().unsure(),
            // The way back rolls back, with the record showing `returning` until that is done.
            (State::Open, Bound::Owned(_)) => {}
            // A savepoint whose RELEASE was cut is perhaps gone: rolling back to it would abort
            // the outer transaction in silence (R5).
            (State::Ending, conn) if level > 1 && DB::NAME != "SQLite" => {
                conn.conduct.doomed = true;
                conn.conduct.close = true;
            }
            (State::Open | State::Ending, conn) => {
                conn.cell().unsure();
                // Queued; it runs before the next statement, or on the way back. SQLite's worker
                // counts on it after a cut COMMIT, and skips it.
                if level > 0 {
                    Manager::<DB>::start_rollback(conn.raw_mut());
                    conn.cell().did(Use::Rollback, Ending::Cut, level - 1);
                }
            }
        }
    }
}
