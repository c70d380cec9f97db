//! The counters of a pool in the words of SQLAlchemy, which dashboards of many teams speak.
//!
//! Responsible for the translation. Not responsible for the counters: see
//! [`PoolStatus`](crate::PoolStatus).

use std::fmt;

use serde::Serialize;
use sqlx::Database;

use crate::Pool;

/// The counters of a pool in SQLAlchemy's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolWords {
    /// The most connections that stay: `max_connections`, without the overflow.
    pub size: u32,
    /// Idle connections.
    pub checked_in: u32,
    /// Connections that are out or on their way back, those of the raw pool and those that are being
    /// opened included.
    pub checked_out: u32,
    /// Connections beyond `size`. Never below zero, where SQLAlchemy counts from minus `size`.
    pub overflow: u32,
    /// Connections that were given up while their session may still be there on the server.
    pub invalid: u64,
    /// Acquires that wait.
    pub waiting: u32,
}

impl<DB: Database> Pool<DB> {
    /// The counters of this moment in SQLAlchemy's words.
    pub fn words(&self) -> PoolWords {
        let status = self.status();
        let size = status.max.saturating_sub(self.overflow());
        PoolWords {
            size,
            checked_in: status.idle,
            checked_out: status.held + status.returning + status.in_progress,
            overflow: status.size.saturating_sub(size),
            invalid: status.orphaned,
            waiting: status.waiting,
        }
    }
}

impl fmt::Display for PoolWords {
    /// As SQLAlchemy's `pool.status()`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Pool size: {} Connections in pool: {} Current Overflow: {} Current Checked out \
             connections: {}",
            self.size, self.checked_in, self.overflow, self.checked_out
        )
    }
}
