//! The drop-in pool and its guards. From here on down, the crate knows sqlx.
//!
//! Responsible for [`Pool`]: sqlx's methods under sqlx's names. Not responsible for what a guard
//! does while it is out (`conn`, `transaction`), nor for its way back (`way_back`).

mod acquire;
mod alive;
mod checkout;
mod close;
mod conn;
mod connection;
mod doomed;
mod executor;
mod flight;
mod hooks;
mod options;
mod probe;
mod seen;
mod strict;
mod transaction;
mod unprepared;
mod watch;
mod way_back;
mod witness;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, Database, Error, SqlSafeStr};

pub use self::acquire::Acquired;
pub use self::conn::Conn;
pub use self::connection::PoolConnection;
pub use self::doomed::DoomedTransaction;
pub use self::options::PoolOptions;
pub use self::strict::StrictError;
pub use self::transaction::Transaction;
use self::watch::SqlxGauges;
use crate::clock::Moment;
use crate::monitor::Monitor;
use crate::registry::{Gauges, Holder, HolderKind, Policy, PoolRecord, PoolStatus, Slots};
use crate::site::CallSite;

type ConnectOptions<DB> = <<DB as Database>::Connection as Connection>::Options;

/// A watched connection pool: sqlx's, under sqlx's names, with a record of who holds what.
///
/// Adoption is a change of imports. Every method behaves as in sqlx and returns the same errors;
/// what is added is said at the method. Cheap to clone; all clones are the same pool.
///
/// There is no `Deref` to sqlx's pool, because its use would not be seen. What needs sqlx's own
/// (`PgListener`, `copy_in_raw` on a pool) gets it from [`Pool::as_sqlx`].
///
/// # Examples
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sqlx::Error> {
/// use leaktrace::SqlitePool;
///
/// let pool = SqlitePool::connect("sqlite::memory:").await?;
/// let mut tx = pool.begin().await?;
/// sqlx::query("CREATE TABLE orders (id INTEGER)").execute(&mut *tx).await?;
/// assert_eq!(pool.holders().len(), 1);
/// tx.commit().await?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
pub struct Pool<DB: Database> {
    raw: sqlx::Pool<DB>,
    watched: Watched,
}

/// What an acquire takes along: everything but sqlx's pool, of which sqlx's own future has a share.
#[derive(Clone)]
struct Watched {
    slots: Arc<Slots>,
    monitor: Monitor,
    policy: Policy,
}

impl Watched {
    fn record(&self) -> &Arc<PoolRecord> {
        self.slots.record()
    }
}

impl<DB: Database> Pool<DB> {
    /// Opens a pool with default options, watched by [`Monitor::global`].
    ///
    /// # Errors
    /// As sqlx's.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        PoolOptions::new().connect(url).await
    }

    /// Opens a pool with default options for that database, watched by [`Monitor::global`].
    ///
    /// # Errors
    /// As sqlx's.
    pub async fn connect_with(options: ConnectOptions<DB>) -> Result<Self, Error> {
        PoolOptions::new().connect_with(options).await
    }

    /// Makes a pool that connects when it is first used, watched by [`Monitor::global`].
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn connect_lazy(url: &str) -> Result<Self, Error> {
        PoolOptions::new().connect_lazy(url)
    }

    /// Makes a pool that connects when it is first used, watched by [`Monitor::global`].
    pub fn connect_lazy_with(options: ConnectOptions<DB>) -> Self {
        PoolOptions::new().connect_lazy_with(options)
    }

    /// Checks a connection out, waiting for one if need be. The calling line becomes the holder's.
    ///
    /// # Errors
    /// As sqlx's: `PoolTimedOut`, `PoolClosed`, or what connecting failed with.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue; a connection that was granted meanwhile
    /// goes back.
    #[track_caller]
    pub fn acquire(
        &self,
    ) -> impl Future<Output = Result<PoolConnection<DB>, Error>> + Send + 'static + use<DB> {
        let site = CallSite::caller();
        self.checkout_as(HolderKind::Connection, Some(site), PoolConnection::new)
    }

    /// Checks a connection out if one is idle.
    #[track_caller]
    pub fn try_acquire(&self) -> Option<PoolConnection<DB>> {
        let conn = self.try_checkout(HolderKind::Connection, CallSite::caller())?;
        Some(PoolConnection::new(conn))
    }

    /// Checks a connection out and begins a transaction. It is rolled back on drop, guaranteed.
    ///
    /// # Errors
    /// As [`Pool::acquire`], and what `BEGIN` fails with.
    ///
    /// # Cancel safety
    /// Wherever the future is dropped, also while `BEGIN` is in flight, the next borrower gets a
    /// connection without an open transaction.
    #[track_caller]
    pub fn begin(
        &self,
    ) -> impl Future<Output = Result<Transaction<'static, DB>, Error>> + Send + 'static + use<DB>
    {
        let site = CallSite::caller();
        let checkout = self.checkout(HolderKind::Transaction, Some(site));
        async move { Transaction::start_owned(checkout.await?, None).await }
    }

    /// Begins a transaction if a connection is idle.
    ///
    /// # Errors
    /// What `BEGIN` fails with.
    #[track_caller]
    pub fn try_begin(
        &self,
    ) -> impl Future<Output = Result<Option<Transaction<'static, DB>>, Error>> + Send + 'static + use<DB>
    {
        let site = CallSite::caller();
        let pool = self.clone();
        async move {
            match pool.try_checkout(HolderKind::Transaction, site) {
                Some(conn) => Transaction::start_owned(conn, None).await.map(Some),
                None => Ok(None),
            }
        }
    }

    /// Checks a connection out and begins a transaction with that statement, such as
    /// `BEGIN IMMEDIATE`.
    ///
    /// # Errors
    /// As [`Pool::begin`]; `BeginFailed` when the statement opens no transaction.
    #[track_caller]
    pub fn begin_with(
        &self,
        statement: impl SqlSafeStr,
    ) -> impl Future<Output = Result<Transaction<'static, DB>, Error>> + Send + 'static {
        let site = CallSite::caller();
        let checkout = self.checkout(HolderKind::Transaction, Some(site));
        let statement = statement.into_sql_str();
        async move { Transaction::start_owned(checkout.await?, Some(statement)).await }
    }

    /// Begins a transaction with that statement if a connection is idle.
    ///
    /// # Errors
    /// As [`Pool::begin_with`].
    #[track_caller]
    pub fn try_begin_with(
        &self,
        statement: impl SqlSafeStr,
    ) -> impl Future<Output = Result<Option<Transaction<'static, DB>>, Error>> + Send + 'static
    {
        let site = CallSite::caller();
        let pool = self.clone();
        let statement = statement.into_sql_str();
        async move {
            match pool.try_checkout(HolderKind::Transaction, site) {
                Some(conn) => Transaction::start_owned(conn, Some(statement))
                    .await
                    .map(Some),
                None => Ok(None),
            }
        }
    }

    /// Runs `work` in a transaction: committed when it answers `Ok`, rolled back when it answers
    /// `Err`, panics, or is dropped.
    ///
    /// # Errors
    /// What `work` answers, or what beginning or committing fails with.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sqlx::Error> {
    /// # let pool = leaktrace::SqlitePool::connect("sqlite::memory:").await?;
    /// pool.transaction(async |tx| {
    ///     sqlx::query("CREATE TABLE orders (id INTEGER)").execute(&mut **tx).await
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "sqlite"))]
    /// # fn main() {}
    /// ```
    #[track_caller]
    pub fn transaction<T, E, F>(&self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: for<'a, 'b> AsyncFnOnce(&'a mut Transaction<'b, DB>) -> Result<T, E>,
        E: From<Error>,
    {
        let begin = self.begin();
        async move {
            let mut tx = begin.await?;
            match work(&mut tx).await {
                Ok(value) => {
                    tx.commit_unnamed().await?;
                    Ok(value)
                }
                Err(error) => {
                    // The error of the work tells more than one of the rollback, which is repeated
                    // on the way back in any case.
                    let _ = tx.rollback().await;
                    Err(error)
                }
            }
        }
    }

    /// Whether the pool is closed or closing.
    pub fn is_closed(&self) -> bool {
        self.raw.is_closed()
    }

    /// Ends when the pool is closed.
    pub fn close_event(&self) -> sqlx::pool::CloseEvent {
        self.raw.close_event()
    }

    /// The number of open connections, idle ones included.
    pub fn size(&self) -> u32 {
        self.raw.size()
    }

    /// The number of idle connections; never more than the pool has.
    pub fn num_idle(&self) -> usize {
        SqlxGauges(self.raw.clone()).idle() as usize
    }

    /// The options as they were set; what leaktrace's own hooks change of them does not show.
    pub fn options(&self) -> &sqlx::pool::PoolOptions<DB> {
        let stated = self.record().stated();
        let stated = stated.and_then(|options| options.downcast_ref());
        stated.unwrap_or_else(|| self.raw.options())
    }

    /// The options for new connections.
    pub fn connect_options(&self) -> Arc<ConnectOptions<DB>> {
        self.raw.connect_options()
    }

    /// Replaces the options for new connections.
    pub fn set_connect_options(&self, options: ConnectOptions<DB>) {
        self.raw.set_connect_options(options);
    }

    /// sqlx's own pool. What is done with it is not seen, so the calling line is remembered and
    /// shown in reports.
    ///
    /// For `PgListener::connect_with`, `copy_in_raw` on a pool, and libraries that want sqlx's type.
    #[track_caller]
    pub fn as_sqlx(&self) -> &sqlx::Pool<DB> {
        let monitor = &self.watched.monitor;
        monitor.handed_out(self.record(), CallSite::caller());
        &self.raw
    }

    /// The name under which it is watched.
    pub fn name(&self) -> &str {
        &self.record().name
    }

    fn record(&self) -> &Arc<PoolRecord> {
        self.watched.record()
    }

    /// The monitor that watches it.
    pub fn monitor(&self) -> &Monitor {
        &self.watched.monitor
    }

    /// The counters of this moment.
    pub fn status(&self) -> PoolStatus {
        self.record().status(Moment::now())
    }

    /// How long ago a connection came back for which somebody waited; `None`: none yet.
    pub fn served_ago(&self) -> Option<Duration> {
        self.record().served_ago()
    }

    /// Who holds a connection of this pool, oldest first.
    pub fn holders(&self) -> Vec<Holder> {
        self.watched.holders()
    }

    /// The same pool under a label: reports name it, and [`Pool::threshold`] and
    /// [`Pool::unreported`] on it concern its checkouts only.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sqlx::Error> {
    /// # use std::time::Duration;
    /// # let pool = leaktrace::SqlitePool::connect_lazy("sqlite::memory:")?;
    /// let exports = pool.labeled("csv export").threshold(Duration::from_secs(300));
    /// let listener = pool.labeled("listener").unreported();
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "sqlite"))]
    /// # fn main() {}
    /// ```
    #[must_use]
    pub fn labeled(&self, label: &'static str) -> Self {
        let mut pool = self.clone();
        pool.watched.policy.label = Some(label);
        pool
    }

    /// The same pool with another threshold for the checkouts through this handle.
    #[must_use]
    pub fn threshold(mut self, threshold: Duration) -> Self {
        self.watched.policy.threshold = Some(threshold);
        self.watched.monitor.note_threshold(threshold);
        self
    }

    /// The same pool; checkouts through this handle are never reported for being old. They still
    /// appear where the pool fails somebody or cannot be closed.
    #[must_use]
    pub fn unreported(mut self) -> Self {
        self.watched.policy.unreported = true;
        self
    }
}

impl<DB: Database> Clone for Pool<DB> {
    fn clone(&self) -> Self {
        Self {
            raw: self.raw.clone(),
            watched: self.watched.clone(),
        }
    }
}

impl<DB: Database> fmt::Debug for Pool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name())
            .field("status", &self.status())
            .field("sqlx", &self.raw)
            .finish_non_exhaustive()
    }
}
