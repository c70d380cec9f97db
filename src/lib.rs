//! Finds leaked database connections in services that use sqlx.
//!
//! Wraps [`sqlx::Pool`] and knows at every moment who holds which connection, since when, from which
//! line, for which request, and what was last seen of it. Says so when a holder is overdue, and never
//! lets an open transaction reach the next borrower. See `docs/guide.md` for a tour.

// A build with fewer features uses less of the core; dead code is looked for in the full one.
#![cfg_attr(
    not(all(
        feature = "postgres",
        feature = "mysql",
        feature = "sqlite",
        feature = "any",
        feature = "axum",
        feature = "json"
    )),
    allow(dead_code, unused_imports)
)]

pub mod config;
#[cfg(feature = "kit")]
pub mod kit;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod testing;

mod clock;
mod finding;
mod judge;
#[cfg(feature = "tower")]
mod layer;
mod monitor;
mod pool;
mod registry;
mod report;
mod scope;
mod sink;
mod site;
mod sync;
mod watchdog;

pub use config::{Config, ConfigError, Detail, Threshold, Unwinder};
pub use finding::{Cause, CauseKind, Finding, FindingId, Kind, Severity};
#[cfg(feature = "tower")]
pub use layer::{ScopeBody, ScopeFuture, ScopeLayer, ScopeService};
pub use monitor::{CancelCounts, Monitor};
pub use pool::{
    Acquired, Conn, DoomedTransaction, Pool, PoolConnection, PoolOptions, StrictError, Transaction,
};
pub use registry::{
    Activity, AlreadyObserved, Blocker, Blocks, CheckoutObserver, Cut, Grant, Holder, HolderId,
    HolderKind, Phase, PoolCounts, PoolInfo, PoolStatus, Release, RollbackCounts, ScopeInfo,
    ServerState, SiteTotal, SpanInfo, Testimony, Waiter,
};
pub use report::{Group, Report};
pub use scope::{RequestCounts, Scope, Scoped};
pub use sink::FindingSink;
pub use site::{Frame, Location, Stack};
pub use testing::{LeakCheck, Leaks};

macro_rules! aliases {
    ($feature:literal, $db:ty, $name:literal, $pool:ident, $options:ident, $transaction:ident) => {
        #[doc = concat!("A watched pool of ", $name, " connections.")]
        #[cfg(feature = $feature)]
        pub type $pool = Pool<$db>;
        #[doc = concat!("The builder of a [`", stringify!($pool), "`].")]
        #[cfg(feature = $feature)]
        pub type $options = PoolOptions<$db>;
        #[doc = concat!("A transaction of a [`", stringify!($pool), "`].")]
        #[cfg(feature = $feature)]
        pub type $transaction<'c> = Transaction<'c, $db>;
    };
}

aliases!(
    "postgres",
    sqlx::Postgres,
    "PostgreSQL",
    PgPool,
    PgPoolOptions,
    PgTransaction
);
aliases!(
    "mysql",
    sqlx::MySql,
    "MySQL and MariaDB",
    MySqlPool,
    MySqlPoolOptions,
    MySqlTransaction
);
aliases!(
    "sqlite",
    sqlx::Sqlite,
    "SQLite",
    SqlitePool,
    SqlitePoolOptions,
    SqliteTransaction
);
aliases!(
    "any",
    sqlx::Any,
    "any database's",
    AnyPool,
    AnyPoolOptions,
    AnyTransaction
);
