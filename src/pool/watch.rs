//! How a sqlx pool becomes a watched one.
//!
//! Responsible for names, for identity and for what sqlx says of its pool. Not responsible for
//! building pools: see `options`.

use std::time::Duration;

use futures_core::future::BoxFuture;
use sqlx::{ConnectOptions as _, Connection as _, Database};

use super::{Pool, Watched, witness};
use crate::clock::span;
use crate::monitor::Monitor;
use crate::registry::{Answer, Attempt, Gauges, Policy, PoolRecord, Question, Reached, Word};
use crate::site::{sql::Dialect, text};

impl Monitor {
    /// Watches a finished pool under this name.
    ///
    /// Watching the same sqlx pool twice yields the same record, with the first name. A name that
    /// another pool of this monitor has gets a number.
    ///
    /// Hooks cannot be added to a finished pool, so what they bring is left to
    /// [`PoolOptions::new`](crate::PoolOptions::new): which backend a connection has is not learned,
    /// the server is not asked what a holder does or who blocks it, a stuck return is not cancelled
    /// there by its pid, and every acquire tests its connection as sqlx does (no `alive_bypass`).
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sqlx::Error> {
    /// use leaktrace::{Config, Monitor};
    ///
    /// let monitor = Monitor::new(Config::default());
    /// let pool = monitor.watch("orders", sqlx::SqlitePool::connect_lazy("sqlite::memory:")?);
    /// assert_eq!(pool.name(), "orders");
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "sqlite"))]
    /// # fn main() {}
    /// ```
    pub fn watch<DB: Database>(&self, name: &str, pool: sqlx::Pool<DB>) -> Pool<DB> {
        self.start();
        let gauges = SqlxGauges(pool.clone());
        let slots = self.registry().watch(gauges.identity(), |id, taken| {
            // Escaped and cut before it is compared: the names that are taken are so too.
            let name = text::escape_text(name, 90);
            PoolRecord::new(id, &unused(&name, taken), Box::new(gauges))
        });
        slots.record().runtime_is_here();
        Pool {
            raw: pool,
            watched: Watched {
                slots,
                monitor: self.clone(),
                policy: Policy::default(),
            },
        }
    }
}

impl<DB: Database> Pool<DB> {
    /// How many of the most connections are there for a while only; see
    /// [`PoolOptions::overflow`](super::PoolOptions::overflow).
    pub fn overflow(&self) -> u32 {
        self.record().habits.overflow()
    }

    pub(crate) fn record_id(&self) -> u64 {
        self.record().id
    }
}

/// `name`, or with the first number that makes it one that is not taken.
fn unused(name: &str, taken: &[String]) -> String {
    let is_taken = |name: &str| taken.iter().any(|other| other == name);
    if !is_taken(name) {
        return name.to_string();
    }
    (2..)
        .map(|number| format!("{name} {number}"))
        .find(|name| !is_taken(name))
        .unwrap_or_default()
}

pub(super) struct SqlxGauges<DB: Database>(pub(super) sqlx::Pool<DB>);

impl<DB: Database> Gauges for SqlxGauges<DB> {
    fn ask(
        &self,
        backend: Option<i64>,
        may_cancel: bool,
        reached: Reached,
    ) -> BoxFuture<'static, Word> {
        Box::pin(witness::ask(self.0.clone(), backend, may_cancel, reached))
    }

    fn testify(&self, question: Question) -> BoxFuture<'static, Answer> {
        Box::pin(witness::testify(self.0.clone(), question))
    }

    fn identity(&self) -> usize {
        std::ptr::from_ref(self.0.options()).addr()
    }

    fn max(&self) -> u32 {
        self.0.options().get_max_connections()
    }

    fn min(&self) -> u32 {
        self.0.options().get_min_connections()
    }

    fn size(&self) -> u32 {
        self.0.size()
    }

    fn idle(&self) -> u32 {
        // sqlx counts with separate atomics, and its count can wrap below zero (sqlx#3645).
        match self.0.num_idle() {
            idle if idle > usize::MAX / 2 => 0,
            idle => u32::try_from(idle).unwrap_or(u32::MAX).min(self.max()),
        }
    }

    fn acquire_timeout(&self) -> Duration {
        self.0.options().get_acquire_timeout()
    }

    fn attempt(&self) -> Attempt {
        const LIMIT: Duration = Duration::from_secs(1);
        let options = self.0.connect_options();
        Box::pin(async move {
            match tokio::time::timeout(LIMIT, options.connect()).await {
                Ok(Ok(connection)) => {
                    let _ = tokio::time::timeout(LIMIT, connection.close()).await;
                    Ok(())
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!(
                    "an attempt of ours to connect had no answer within {}",
                    span(LIMIT)
                )),
            }
        })
    }
}

/// Whose SQL a database speaks.
pub(super) fn dialect<DB: Database>() -> Dialect {
    match DB::NAME {
        "PostgreSQL" => Dialect::Postgres,
        "MySQL" => Dialect::MySql,
        "SQLite" => Dialect::Sqlite,
        _ => Dialect::Unknown,
    }
}

impl<DB: Database> From<sqlx::Pool<DB>> for Pool<DB> {
    /// Watches the pool with [`Monitor::global`], under the name of its database.
    fn from(pool: sqlx::Pool<DB>) -> Self {
        Monitor::global().watch(DB::NAME, pool)
    }
}
