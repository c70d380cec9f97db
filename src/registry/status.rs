//! The counters of a pool, as readers get them.
//!
//! Responsible for the words. Not responsible for counting: see `pool`.

use super::tallies::PoolCounts;
use crate::site::Location;

/// The counters of a pool at one moment.
///
/// `held`, `returning`, `waiting` and `orphaned` are leaktrace's own and exact. `max`, `size` and
/// `idle` are sqlx's, read at another moment. `in_progress` and `untracked` are drawn from both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolStatus {
    /// Checkouts that are out, pooled statements included.
    pub held: u32,
    /// Connections on their way back.
    pub returning: u32,
    /// Acquires that found every permit in use.
    pub waiting: u32,
    /// Connections closed while their backend may still run on the server.
    pub orphaned: u64,
    /// `max_connections`.
    pub max: u32,
    /// Open connections.
    pub size: u32,
    /// Idle connections; never more than `max`.
    pub idle: u32,
    /// Connections that are none of idle, held or returning: being opened, tested or reaped, or
    /// used through the raw pool.
    pub in_progress: u32,
    /// What of `in_progress` has stayed for a second while nobody waited: used through the raw
    /// pool, or lost.
    pub untracked: u32,
}

/// One pool of a monitor, at one moment.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolInfo {
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) id: u64,
    /// The name it was given.
    pub name: String,
    /// Its counters.
    pub status: PoolStatus,
    /// `min_connections`.
    pub min: u32,
    /// How many of `status.max` are there for a while only; see
    /// [`Pool::overflow`](crate::Pool::overflow).
    pub overflow: u32,
    /// How often something happened on it since it was first watched.
    pub counts: PoolCounts,
    /// Where `as_sqlx` handed the raw pool out.
    pub raw_handed_out: Vec<Location>,
}
