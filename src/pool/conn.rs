//! What the guards deref to: a connection that sees how it is used.
//!
//! Responsible for [`Conn`]: who borrows it, where, and the way home when it is dropped. Not
//! responsible for seeing statements (`executor`, `flight`) or for transactions (`transaction`).

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::{Connection, Database, Error, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;

use super::checkout::Checkout;
use super::transaction::Transaction;
use super::way_back;
use crate::monitor::Monitor;
use crate::registry::Cell;
use crate::site::CallSite;

/// A checked-out connection, as [`PoolConnection`](super::PoolConnection) and [`Transaction`] deref
/// to it.
///
/// `&mut Conn<Postgres>` (and of the other databases) is an `Executor`: its statements are seen,
/// with their SQL, their end and their errors. It derefs to sqlx's own connection, so that
/// `fn f(c: &mut PgConnection)` is called as before; what runs behind such a loan is not seen.
pub struct Conn<DB: Database> {
    /// `Some` until the guard is dropped or given away.
    checkout: Option<Checkout<DB>>,
    pub(super) conduct: Conduct,
}

/// What has to be known of a connection when it goes home.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conduct {
    /// Close it instead of returning it: the user asked for it, or its state cannot be healed.
    pub(super) close: bool,
    /// How many levels the guard that is in use counts on.
    pub(super) level: usize,
    /// The end of a savepoint was cut: what its rollback will answer is not known, so the connection
    /// stays doomed until it is back.
    pub(super) torn: bool,
    /// Dropped with a transaction that its guard knows of: to be rolled back, and nobody's mistake.
    pub(super) in_transaction: bool,
    /// The user said that nothing of it is wanted.
    pub(super) discarded: bool,
    /// Lent as a raw connection after its transaction was gone.
    pub(super) strayed: bool,
    /// The transaction is to end by its guard alone.
    pub(super) sealed: bool,
    /// SQLite's count of changes when the transaction began.
    pub(super) changes: Option<i64>,
}

impl Conduct {
    /// The guard leaves nothing to settle.
    pub(super) fn is_plain(&self) -> bool {
        !(self.close || self.in_transaction || self.strayed || self.torn)
    }
}

impl<DB: Database> Conn<DB> {
    pub(super) fn new(checkout: Checkout<DB>) -> Self {
        Self {
            checkout: Some(checkout),
            conduct: Conduct::default(),
        }
    }

    fn checkout(&self) -> &Checkout<DB> {
        // `take` consumes the guard, or is called by its drop.
        self.checkout
            .as_ref()
            .expect("the checkout is here until the guard ends")
    }

    pub(super) fn take(mut self) -> Checkout<DB> {
        self.checkout.take().expect("a guard ends once")
    }

    pub(super) fn cell(&self) -> &Arc<Cell> {
        self.checkout().lease.cell()
    }

    /// For the executor: a statement follows, directly called from that line if it is known.
    pub(super) fn used_by(&self, by: Option<CallSite>) -> Arc<Cell> {
        let cell = self.cell();
        if let Some(by) = by {
            cell.borrowed(by);
        }
        Arc::clone(cell)
    }

    /// Whether its statements are to leave no name on the server.
    pub(super) fn is_unprepared(&self) -> bool {
        self.cell().pool.habits.is_unprepared()
    }

    pub(super) fn monitor(&self) -> &Monitor {
        &self.checkout().monitor
    }

    pub(super) fn raw(&self) -> &DB::Connection {
        self.checkout().raw()
    }

    /// Whether the transaction that the guard stands for is gone (R8): a nested begin was cut or
    /// refused, here or on a raw loan, or a sealed one was ended by text. Whatever runs now would run
    /// in autocommit.
    pub(super) fn is_doomed(&self) -> bool {
        self.cell().is_doomed()
            || (self.conduct.sealed && !self.cell().is_in_transaction())
            || DB::TransactionManager::get_transaction_depth(self.raw()) < self.conduct.level
    }

    /// The connection, without a note that it was lent.
    pub(super) fn raw_mut(&mut self) -> &mut DB::Connection {
        self.checkout
            .as_mut()
            .expect("the checkout is here until the guard ends")
            .raw_mut()
    }

    /// Begins a transaction, or a savepoint within one.
    ///
    /// # Errors
    /// What `BEGIN` or `SAVEPOINT` fails with.
    ///
    /// # Cancel safety
    /// As [`Transaction::begin`].
    #[track_caller]
    pub fn begin(&mut self) -> impl Future<Output = Result<Transaction<'_, DB>, Error>> + Send {
        self.cell().borrowed(CallSite::caller());
        Transaction::start_lent(self, None)
    }

    /// Begins a transaction with that statement.
    ///
    /// # Errors
    /// As [`Pool::begin_with`](super::Pool::begin_with); `InvalidSavePointStatement` within a
    /// transaction.
    #[track_caller]
    pub fn begin_with(
        &mut self,
        statement: impl SqlSafeStr,
    ) -> impl Future<Output = Result<Transaction<'_, DB>, Error>> + Send {
        self.cell().borrowed(CallSite::caller());
        let statement = statement.into_sql_str();
        Transaction::start_lent(self, Some(statement))
    }

    /// Asks the server whether it is there.
    ///
    /// # Errors
    /// What the connection fails with.
    pub async fn ping(&mut self) -> Result<(), Error> {
        // MariaDB's driver does not know of an answer to a ping that was cut.
        let mut pinging = Pinging(Some(Arc::clone(self.cell())));
        let answer = self.raw_mut().ping().await;
        pinging.0 = None;
        answer
    }

    /// Whether a transaction of sqlx or leaktrace is open. A `BEGIN` sent as text is not counted.
    pub fn is_in_transaction(&self) -> bool {
        self.raw().is_in_transaction()
    }
}

/// Dropped before the end of a ping, it says so.
struct Pinging(Option<Arc<Cell>>);

impl Drop for Pinging {
    fn drop(&mut self) {
        if let Some(cell) = &self.0 {
            cell.unsure();
        }
    }
}

impl<DB: Database> Deref for Conn<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        self.raw()
    }
}

impl<DB: Database> DerefMut for Conn<DB> {
    /// Lends the raw connection: the line is kept, what runs there is not seen.
    #[track_caller]
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.cell().lent(CallSite::caller());
        if self.is_doomed() {
            // A raw loan cannot be refused; what it does in autocommit must not be mixed up with
            // the transaction its borrower believes in.
            self.conduct.close = true;
            self.conduct.strayed = true;
        }
        self.raw_mut()
    }
}

impl<DB: Database> AsRef<DB::Connection> for Conn<DB> {
    fn as_ref(&self) -> &DB::Connection {
        self
    }
}

impl<DB: Database> AsMut<DB::Connection> for Conn<DB> {
    #[track_caller]
    fn as_mut(&mut self) -> &mut DB::Connection {
        self
    }
}

impl<DB: Database> fmt::Debug for Conn<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("holder", &self.checkout().lease.id())
            .finish_non_exhaustive()
    }
}

impl<DB: Database> Drop for Conn<DB> {
    fn drop(&mut self) {
        if let Some(checkout) = self.checkout.take() {
            way_back::start(checkout, self.conduct);
        }
    }
}
