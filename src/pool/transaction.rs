//! Our own transaction, because sqlx's does not keep its promise.
//!
//! Responsible for begin, commit and rollback, and for what a drop at any point of them leaves to
//! the way back. Works on sqlx-core's `TransactionManager`, so that raw loans and savepoints of
//! sqlx count the same levels. Not responsible for healing: see `way_back`.

mod leaving;

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};

use sqlx::{Connection, Database, Error, SqlStr};
use sqlx_core::transaction::TransactionManager;

use super::conn::Conn;
use super::doomed::DoomedTransaction;
use super::strict::StrictError;
use super::witness::{self, Server};
use crate::finding::Kind;
use crate::registry::{Ending, Rollback, Use};
use crate::scope::Scope;
use crate::site::CallSite;

/// A transaction, or a savepoint within one. Rolled back on drop, guaranteed.
///
/// Ends with [`commit`](Self::commit), [`rollback`](Self::rollback) or [`discard`](Self::discard);
/// in every other case it is rolled back, and nobody gets the connection before that is done.
pub struct Transaction<'c, DB: Database> {
    conn: Bound<'c, DB>,
    state: State,
    /// How many levels were open before this one.
    outer: usize,
    /// The line that commits.
    committed_by: Option<CallSite>,
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
    Ending(Use),
    Ended,
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
        let outer = Manager::<DB>::get_transaction_depth(conn.raw());
        let mut tx = Self {
            conn,
            state: State::Beginning,
            outer,
            committed_by: None,
        };
        if tx.conn.is_doomed() {
            tx.state = State::Ended;
            return Err(DoomedTransaction::error());
        }
        // A nested begin that does not succeed takes the outer one with it (R8): on PostgreSQL the
        // driver sends the rollback, elsewhere nobody knows what ran.
        tx.conn.cell().doom(outer > 0);
        tx.conn.cell().doing(Use::Begin);
        let begun = Manager::<DB>::begin(tx.conn.raw_mut(), sql).await;
        let depth = tx.depth();
        match begun {
            Ok(()) => {
                tx.conn.cell().doom(false);
                tx.conn.conduct.level = depth;
                tx.state = State::Open;
                tx.conn.cell().did(Use::Begin, Ending::Succeeded, depth);
                if outer == 0 {
                    tx.conn.conduct.discarded = false;
                    tx.count_changes().await;
                }
                Ok(tx)
            }
            Err(error) => {
                tx.conn.cell().doom(outer > 0 && depth != outer);
                tx.state = State::Ended;
                tx.conn.cell().did(Use::Begin, Ending::Failed, depth);
                Err(error)
            }
        }
    }

    /// SQLite cannot say what a transaction has written without what it had written before. Asked
    /// only in a request, whose answer decides whether a rollback loses anything.
    async fn count_changes(&mut self) {
        let in_request = self
            .conn
            .cell()
            .scope()
            .as_ref()
            .is_some_and(Scope::is_of_request);
        self.conn.conduct.changes = match Server::of::<DB>(self.conn.raw()) {
            Server::Sqlite if in_request => witness::changes::<DB>(self.conn.raw_mut()).await,
            _ => None,
        };
    }

    fn depth(&self) -> usize {
        Manager::<DB>::get_transaction_depth(self.conn.raw())
    }

    /// For the executor: a statement follows whose line is not known.
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
    #[track_caller]
    pub fn commit(mut self) -> impl Future<Output = Result<(), Error>> {
        self.committed_by = Some(CallSite::caller());
        self.commit_unnamed()
    }

    /// The same, on behalf of a line that is not known.
    pub(super) async fn commit_unnamed(mut self) -> Result<(), Error> {
        if self.is_lost().await? {
            return Err(DoomedTransaction::error());
        }
        let aborted = self.outer == 0 && self.is_aborted().await?;
        if aborted && self.conn.monitor().config().get_strict() {
            return Err(StrictError::NothingSaved.error());
        }
        self.state = State::Ending(Use::Commit);
        self.conn.cell().doing(Use::Commit);
        let ended = Manager::<DB>::commit(self.conn.raw_mut()).await;
        let ended = self.ended(Use::Commit, ended);
        if aborted && ended.is_ok() {
            self.rolled_back(Rollback::Aborted);
            self.conn.monitor().ended_badly(
                self.conn.cell(),
                Kind::LostWrites,
                "committed after a statement had failed: PostgreSQL had aborted the transaction and saved nothing",
                Some("return the error of the failed statement, or run it in a savepoint: begin() on the transaction"),
            );
        }
        ended
    }

    /// Rolls back now, to the savepoint if it is one.
    ///
    /// # Errors
    /// What the server answers. The way back rolls back in any case.
    pub async fn rollback(mut self) -> Result<(), Error> {
        self.state = State::Ending(Use::Rollback);
        self.conn.cell().doing(Use::Rollback);
        let ended = Manager::<DB>::rollback(self.conn.raw_mut()).await;
        if ended.is_ok() {
            self.rolled_back(Rollback::Asked);
        }
        self.ended(Use::Rollback, ended)
    }

    /// Whether the transaction is gone, and a commit would send nothing and say `Ok`.
    async fn is_lost(&mut self) -> Result<bool, Error> {
        let by_text = self.conn.cell().doubts().by_text;
        let server = Server::of::<DB>(self.conn.raw());
        if by_text && server == Server::Sqlite {
            // What a raw loan has queued is counted only when it is done.
            self.conn.raw_mut().ping().await?;
        }
        let sealed = self.conn.conduct.sealed && self.outer == 0;
        if sealed && by_text && server == Server::Postgres && !self.conn.is_doomed() {
            let cell = self.conn.cell().clone();
            cell.doing(Use::Commit);
            let open = witness::is_in_transaction::<DB>(self.conn.raw_mut()).await;
            cell.did(Use::Commit, Ending::Failed, self.depth());
            return Ok(!open?);
        }
        Ok(self.conn.is_doomed())
    }

    /// Whether PostgreSQL has aborted the transaction, so that a commit saves nothing and says `Ok`.
    /// Asked after a statement was seen to fail; in strict mode after a raw loan too.
    async fn is_aborted(&mut self) -> Result<bool, Error> {
        let doubts = self.conn.cell().doubts();
        let strict = self.conn.monitor().config().get_strict();
        let in_doubt = doubts.failed || (strict && doubts.by_text);
        if !in_doubt || Server::of::<DB>(self.conn.raw()) != Server::Postgres {
            return Ok(false);
        }
        let cell = self.conn.cell().clone();
        cell.doing(Use::Commit);
        let aborted = witness::is_aborted::<DB>(self.conn.raw_mut()).await;
        cell.did(Use::Commit, Ending::Failed, self.depth());
        aborted
    }

    /// Counts it; a savepoint is not one.
    fn rolled_back(&self, why: Rollback) {
        if self.outer == 0 {
            self.conn.cell().pool.tallies.rolled_back(why);
        }
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
        } else if self.state != State::Ended {
            self.state = State::Open;
        }
        ended
    }

    /// From now on it ends by its guard alone: a `COMMIT` or `ROLLBACK` that is sent as text is not
    /// forgiven. For transactions in whose absence a statement would do something else, such as one
    /// that carries a tenant or a role by `SET LOCAL`.
    ///
    /// The text itself is done. The next statement, a nested [`begin`](Self::begin) and
    /// [`commit`](Self::commit) are refused with [`DoomedTransaction`]. In a script of several
    /// statements and on a loan of the raw connection it is not seen: there the commit asks
    /// PostgreSQL, and is refused; what ran meanwhile, ran. Other databases are not asked.
    ///
    /// # Cost
    /// One round trip in a commit after a script or a raw loan, and none else.
    pub fn seal(&mut self) {
        self.conn.conduct.sealed = true;
    }

    /// Rolls back on purpose, without waiting: what a drop does, but never reported.
    pub fn discard(mut self) {
        self.will_be_discarded();
        drop(self);
    }

    /// From now on a drop is no loss of writes, and never reported.
    pub(crate) fn will_be_discarded(&mut self) {
        if self.outer == 0 {
            self.conn.conduct.discarded = true;
        }
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
