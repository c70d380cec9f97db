//! sqlx's pool options, and our own beside them.
//!
//! Responsible for the builder. Not responsible for what the options mean: sqlx keeps them. Nor for
//! what hooks do: see `hooks`.

mod making;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use log::LevelFilter;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::{Database, Error};

use super::hooks::Hooks;
use super::{ConnectOptions, Pool};
use crate::monitor::Monitor;

/// The builder of a watched pool: sqlx's, plus [`name`](Self::name) and
/// [`monitor`](Self::monitor).
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sqlx::Error> {
/// use leaktrace::SqlitePoolOptions;
///
/// let pool = SqlitePoolOptions::new()
///     .name("orders")
///     .max_connections(5)
///     .connect("sqlite::memory:")
///     .await?;
/// assert_eq!(pool.name(), "orders");
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
pub struct PoolOptions<DB: Database> {
    raw: sqlx::pool::PoolOptions<DB>,
    name: Option<String>,
    monitor: Option<Monitor>,
    hooks: Hooks<DB>,
    /// Made by [`PoolOptions::new`]: hooks that sqlx keeps cannot be read, so ours must not replace
    /// what may be there.
    own: bool,
    identify: bool,
    bypass: Duration,
    pub(super) unprepared: bool,
    overflow: u32,
    return_limit: Option<Duration>,
}

impl<DB: Database> PoolOptions<DB> {
    const BYPASS: Duration = Duration::from_millis(500);

    /// sqlx's defaults, watched by [`Monitor::global`].
    pub fn new() -> Self {
        Self {
            own: true,
            ..Self::from(sqlx::pool::PoolOptions::new())
        }
    }

    /// Sets how long a connection may take to come back before the server is asked about it.
    /// Default: 5 s.
    ///
    /// At the limit a side connection asks the server. Silent server, or nothing running: the
    /// connection is closed and its place is free. A statement of ours still running, because its
    /// caller went away: it is cancelled there, and the place is kept until that has an effect.
    pub fn return_limit(mut self, limit: Duration) -> Self {
        self.return_limit = Some(limit);
        self
    }

    /// Sets for how long a connection counts as alive after it came back. Default: 500 ms; zero tests
    /// each time, as sqlx does.
    ///
    /// sqlx tests every connection when it comes back, and with
    /// [`test_before_acquire`](Self::test_before_acquire) once more before it is given out: a round
    /// trip in which the caller waits. Within this time the second test is left out. The time is
    /// HikariCP's
    /// ([`aliveBypassWindowMs`](https://github.com/brettwooldridge/HikariCP/wiki/Rarely-Used-System-Properties)).
    /// A connection that dies within it is noticed by its first statement, which fails;
    /// `docs/performance.md` has a table of what then happens.
    ///
    /// Your `before_acquire` is called in any case.
    pub fn alive_bypass(mut self, time: Duration) -> Self {
        self.bypass = time;
        self
    }

    /// For how long a connection counts as alive after it came back.
    pub fn get_alive_bypass(&self) -> Duration {
        self.bypass
    }

    /// Sets whether the backend of each connection is learned. Default: true.
    ///
    /// Without it a statement whose caller went away cannot be cancelled on the server, and the server
    /// is not asked about holders ([`Config::witness`](crate::Config::witness)).
    ///
    /// # Cost
    /// One round trip when connecting. Then `SELECT pg_backend_pid()` or `SELECT CONNECTION_ID()`
    /// takes the place of sqlx's ping where there is one, also in the server's statistics of
    /// statements; a connection that counts as alive is known by its age, without a question.
    /// Nothing on SQLite, and nothing at reuse with `test_before_acquire(false)`.
    pub fn identify_backends(mut self, identify: bool) -> Self {
        self.identify = identify;
        self
    }

    /// Sets how many connections there may be for a while beyond
    /// [`max_connections`](Self::max_connections). Default: 0.
    ///
    /// One that comes back while there are too many, and nobody waits for it, is closed. Nothing for
    /// options made from sqlx's, whose hooks are not ours.
    pub fn overflow(mut self, extra: u32) -> Self {
        self.overflow = extra;
        self
    }

    /// How many connections there may be for a while beyond the most.
    pub fn get_overflow(&self) -> u32 {
        self.overflow
    }

    /// Sets the name under which the pool is watched. Default: the name of the database.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets who watches the pool. Default: [`Monitor::global`].
    pub fn monitor(mut self, monitor: impl Borrow<Monitor>) -> Self {
        self.monitor = Some(monitor.borrow().clone());
        self
    }

    fn map(
        mut self,
        change: impl FnOnce(sqlx::pool::PoolOptions<DB>) -> sqlx::pool::PoolOptions<DB>,
    ) -> Self {
        self.raw = change(self.raw);
        self
    }

    /// Sets the most connections. Default: 10.
    pub fn max_connections(self, max: u32) -> Self {
        self.map(|raw| raw.max_connections(max))
    }

    /// The most connections.
    pub fn get_max_connections(&self) -> u32 {
        self.raw.get_max_connections()
    }

    /// Sets how many connections are kept open. Default: 0.
    pub fn min_connections(self, min: u32) -> Self {
        self.map(|raw| raw.min_connections(min))
    }

    /// How many connections are kept open.
    pub fn get_min_connections(&self) -> u32 {
        self.raw.get_min_connections()
    }

    /// Sets the level at which sqlx logs every acquire. Default: off.
    pub fn acquire_time_level(self, level: LevelFilter) -> Self {
        self.map(|raw| raw.acquire_time_level(level))
    }

    /// Sets the level at which sqlx logs slow acquires. Default: warn.
    pub fn acquire_slow_level(self, level: LevelFilter) -> Self {
        self.map(|raw| raw.acquire_slow_level(level))
    }

    /// Sets when sqlx calls an acquire slow. Default: 2 s.
    pub fn acquire_slow_threshold(self, threshold: Duration) -> Self {
        self.map(|raw| raw.acquire_slow_threshold(threshold))
    }

    /// When sqlx calls an acquire slow.
    pub fn get_acquire_slow_threshold(&self) -> Duration {
        self.raw.get_acquire_slow_threshold()
    }

    /// Sets how long an acquire may take, connecting included. Default: 30 s.
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        self.map(|raw| raw.acquire_timeout(timeout))
    }

    /// How long an acquire may take.
    pub fn get_acquire_timeout(&self) -> Duration {
        self.raw.get_acquire_timeout()
    }

    /// Sets after which age a connection is replaced. Default: 30 min.
    pub fn max_lifetime(self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.map(|raw| raw.max_lifetime(lifetime))
    }

    /// After which age a connection is replaced.
    pub fn get_max_lifetime(&self) -> Option<Duration> {
        self.raw.get_max_lifetime()
    }

    /// Sets after how much idle time a connection is closed. Default: 10 min.
    pub fn idle_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.map(|raw| raw.idle_timeout(timeout))
    }

    /// After how much idle time a connection is closed.
    pub fn get_idle_timeout(&self) -> Option<Duration> {
        self.raw.get_idle_timeout()
    }

    /// Sets whether a connection is tested before it is given out. Default: true.
    pub fn test_before_acquire(self, test: bool) -> Self {
        self.map(|raw| raw.test_before_acquire(test))
    }

    /// Whether a connection is tested before it is given out.
    pub fn get_test_before_acquire(&self) -> bool {
        self.raw.get_test_before_acquire()
    }

    /// Sets what is done with each new connection.
    pub fn after_connect<F>(self, callback: F) -> Self
    where
        for<'c> F: Fn(&'c mut DB::Connection, PoolConnectionMetadata) -> BoxFuture<'c, Result<(), Error>>
            + 'static
            + Send
            + Sync,
    {
        let mut this = self;
        if this.own {
            this.hooks.after_connect = Some(Arc::new(callback));
            return this;
        }
        this.map(|raw| raw.after_connect(callback))
    }

    /// Sets what is done with an idle connection before it is given out; `Ok(false)` closes it.
    pub fn before_acquire<F>(self, callback: F) -> Self
    where
        for<'c> F: Fn(&'c mut DB::Connection, PoolConnectionMetadata) -> BoxFuture<'c, Result<bool, Error>>
            + 'static
            + Send
            + Sync,
    {
        let mut this = self;
        if this.own {
            this.hooks.before_acquire = Some(Arc::new(callback));
            return this;
        }
        this.map(|raw| raw.before_acquire(callback))
    }

    /// Sets what is done with a connection that comes back; `Ok(false)` closes it.
    pub fn after_release<F>(self, callback: F) -> Self
    where
        for<'c> F: Fn(&'c mut DB::Connection, PoolConnectionMetadata) -> BoxFuture<'c, Result<bool, Error>>
            + 'static
            + Send
            + Sync,
    {
        let mut this = self;
        if this.own {
            this.hooks.after_release = Some(Arc::new(callback));
            return this;
        }
        this.map(|raw| raw.after_release(callback))
    }

    /// Opens the pool, with one connection to see that it can.
    ///
    /// # Errors
    /// As sqlx's.
    pub async fn connect(self, url: &str) -> Result<Pool<DB>, Error> {
        let (raw, watch) = self.split();
        Ok(watch.over(raw.connect(url).await?))
    }

    /// Opens the pool for that database.
    ///
    /// # Errors
    /// As sqlx's.
    pub async fn connect_with(self, options: ConnectOptions<DB>) -> Result<Pool<DB>, Error> {
        let (raw, watch) = self.split();
        Ok(watch.over(raw.connect_with(options).await?))
    }

    /// Makes the pool; it connects when it is first used.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn connect_lazy(self, url: &str) -> Result<Pool<DB>, Error> {
        let (raw, watch) = self.split();
        Ok(watch.over(raw.connect_lazy(url)?))
    }

    /// Makes the pool for that database; it connects when it is first used.
    pub fn connect_lazy_with(self, options: ConnectOptions<DB>) -> Pool<DB> {
        let (raw, watch) = self.split();
        watch.over(raw.connect_lazy_with(options))
    }
}

impl<DB: Database> From<sqlx::pool::PoolOptions<DB>> for PoolOptions<DB> {
    /// Takes sqlx's options as they are. Hooks that were set there cannot be read, so ours are left
    /// out: such a pool is guarded like one given to [`Monitor::watch`].
    fn from(raw: sqlx::pool::PoolOptions<DB>) -> Self {
        Self {
            raw,
            name: None,
            monitor: None,
            hooks: Hooks::default(),
            own: false,
            identify: true,
            bypass: Self::BYPASS,
            unprepared: false,
            overflow: 0,
            return_limit: None,
        }
    }
}

impl<DB: Database> Default for PoolOptions<DB> {
    fn default() -> Self {
        Self::new()
    }
}

impl<DB: Database> Clone for PoolOptions<DB> {
    fn clone(&self) -> Self {
        Self {
            raw: self.raw.clone(),
            name: self.name.clone(),
            monitor: self.monitor.clone(),
            hooks: self.hooks.clone(),
            own: self.own,
            identify: self.identify,
            bypass: self.bypass,
            unprepared: self.unprepared,
            overflow: self.overflow,
            return_limit: self.return_limit,
        }
    }
}

impl<DB: Database> fmt::Debug for PoolOptions<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolOptions")
            .field("name", &self.name)
            .field("sqlx", &self.raw)
            .finish_non_exhaustive()
    }
}
