//! From options to a watched pool.
//!
//! Responsible for what sqlx is given and for what is done once it has made the pool. Not
//! responsible for the builder.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Database;

use super::PoolOptions;
use crate::monitor::Monitor;
use crate::pool::Pool;
use crate::pool::hooks::{Ours, Told};

impl<DB: Database> PoolOptions<DB> {
    /// sqlx's options with all hooks, and what is left to do with the pool.
    pub(super) fn split(self) -> (sqlx::pool::PoolOptions<DB>, Watch<DB>) {
        let identify = self.identify && !self.unprepared && DB::NAME != "SQLite";
        let watch = Watch {
            name: self.name,
            monitor: self.monitor,
            return_limit: self.return_limit,
            unprepared: self.unprepared,
            overflow: if self.own { self.overflow } else { 0 },
            learns: self.own && identify,
            // The hooks of foreign options are in `raw` already.
            stated: self.hooks.clone().alone(self.raw.clone()),
            told: Told::default(),
        };
        let raw = if self.own {
            let told = Arc::clone(&watch.told);
            let base = self.raw.get_max_connections();
            let raw = self.raw.max_connections(base.saturating_add(self.overflow));
            let ours = Ours {
                identify,
                bypass: self.bypass,
                overflows: self.overflow > 0,
            };
            self.hooks.install(raw, ours, told)
        } else {
            self.raw
        };
        (raw, watch)
    }
}

/// What is done with the pool once sqlx has made it.
pub(super) struct Watch<DB: Database> {
    name: Option<String>,
    monitor: Option<Monitor>,
    return_limit: Option<Duration>,
    unprepared: bool,
    overflow: u32,
    /// Hooks of ours learn which backend a connection has.
    learns: bool,
    /// What the user set, for [`Pool::options`].
    stated: sqlx::pool::PoolOptions<DB>,
    told: Told,
}

impl<DB: Database> Watch<DB> {
    pub(super) fn over(self, pool: sqlx::Pool<DB>) -> Pool<DB> {
        let name = self.name.as_deref().unwrap_or(DB::NAME);
        let monitor = self.monitor.as_ref().unwrap_or_else(|| Monitor::global());
        let pool = monitor.watch(name, pool);
        if let Some(limit) = self.return_limit {
            pool.record().returns.set_limit(limit);
        }
        if self.unprepared {
            pool.record().habits.set_unprepared();
        }
        pool.record().habits.set_overflow(self.overflow);
        pool.record().state(Box::new(self.stated));
        if self.learns {
            pool.record().set_learns();
        }
        // Weak: sqlx's pool keeps its hooks, and the record keeps sqlx's pool.
        let _ = self
            .told
            .set((monitor.clone(), Arc::downgrade(pool.record())));
        pool
    }
}
