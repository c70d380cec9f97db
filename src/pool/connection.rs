//! The guard of `acquire`.
//!
//! Responsible for sqlx's methods on it. Not responsible for what it sees: see `conn`.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};

use sqlx::{Database, Error, SqlSafeStr};

use super::conn::Conn;
use super::transaction::Transaction;
use super::way_back;
use crate::site::CallSite;

/// A connection that goes back to its pool when it is dropped.
///
/// # Drop
/// Never panics, with or without a runtime. Whatever was left open on it (a `BEGIN` sent as text,
/// a statement cut in the middle) is settled before anybody else gets it.
pub struct PoolConnection<DB: Database> {
    conn: Conn<DB>,
}

impl<DB: Database> PoolConnection<DB> {
    pub(super) fn new(conn: Conn<DB>) -> Self {
        Self { conn }
    }

    /// Begins a transaction on this connection.
    ///
    /// # Errors
    /// What `BEGIN` fails with.
    #[track_caller]
    pub fn begin(&mut self) -> impl Future<Output = Result<Transaction<'_, DB>, Error>> + Send {
        self.conn.begin()
    }

    /// Begins a transaction with that statement.
    ///
    /// # Errors
    /// As [`Pool::begin_with`](super::Pool::begin_with).
    #[track_caller]
    pub fn begin_with(
        &mut self,
        statement: impl SqlSafeStr,
    ) -> impl Future<Output = Result<Transaction<'_, DB>, Error>> + Send {
        self.conn.begin_with(statement)
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

    /// Closes the connection; the pool may open another. The record ends when that is done.
    ///
    /// # Errors
    /// What closing fails with.
    pub async fn close(self) -> Result<(), Error> {
        let checkout = self.conn.take();
        checkout.lease.release(false);
        checkout.close().await
    }

    /// Closes the connection when it is dropped, instead of returning it.
    pub fn close_on_drop(&mut self) {
        self.conn.conduct.close = true;
    }

    /// Takes the connection out of the pool, which may open another. The record ends.
    pub fn detach(self) -> DB::Connection {
        self.conn.take().detach()
    }

    /// Takes the connection and its permit out of the pool for ever. The record stays, and says so.
    pub fn leak(self) -> DB::Connection {
        self.conn.take().leak()
    }

    /// Returns the connection, and ends when the pool has it back.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the return to go on by itself.
    pub async fn release(self) {
        let conduct = self.conn.conduct;
        way_back::finish(self.conn.take(), conduct).await;
    }
}

impl<DB: Database> Deref for PoolConnection<DB> {
    type Target = Conn<DB>;

    fn deref(&self) -> &Conn<DB> {
        &self.conn
    }
}

impl<DB: Database> DerefMut for PoolConnection<DB> {
    /// Remembers the calling line: the statement that follows came from there.
    #[track_caller]
    fn deref_mut(&mut self) -> &mut Conn<DB> {
        self.conn.cell().borrowed(CallSite::caller());
        &mut self.conn
    }
}

impl<DB: Database> AsRef<DB::Connection> for PoolConnection<DB> {
    fn as_ref(&self) -> &DB::Connection {
        &self.conn
    }
}

impl<DB: Database> AsMut<DB::Connection> for PoolConnection<DB> {
    #[track_caller]
    fn as_mut(&mut self) -> &mut DB::Connection {
        self.conn.as_mut()
    }
}

impl<DB: Database> fmt::Debug for PoolConnection<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PoolConnection").field(&self.conn).finish()
    }
}
