//! What a person or a program reads.
//!
//! Responsible for grouping holders by bug and for the text of reports and findings; the JSON is
//! the same struct, serialised. Not responsible for what is true: it formats copies.

mod group;
mod headline;
mod serving;
mod text;

use std::time::{Duration, SystemTime};

pub use self::group::Group;
pub(crate) use self::group::{GroupKey, group};
pub(crate) use self::headline::headline;
use crate::finding::Cause;
use crate::registry::{PoolInfo, SiteTotal, Waiter};

/// The account of a monitor at one moment.
///
/// `Display` is the text for people. With the feature `json` it can be serialised: durations are
/// numbers of milliseconds in fields called `*_ms`.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// When it was taken.
    #[cfg_attr(
        feature = "json",
        serde(serialize_with = "crate::clock::json::timestamp")
    )]
    pub taken_at: SystemTime,
    /// How long leaktrace has been running in this process.
    #[cfg_attr(
        feature = "json",
        serde(rename = "uptime_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub uptime: Duration,
    /// What blocks the runtime, when it does not run what it is given.
    pub runtime: Option<String>,
    /// The pools, as watched.
    pub pools: Vec<PoolInfo>,
    /// The holders, one group per bug, oldest first.
    #[cfg_attr(
        feature = "json",
        serde(serialize_with = "crate::site::serialize_named")
    )]
    pub groups: Vec<Group>,
    /// How many groups there was no room for.
    pub groups_left_out: usize,
    /// Why the pools in which somebody waits have nothing to give: the pool's name and the cause,
    /// the largest share first.
    pub causes: Vec<(String, Cause)>,
    /// Who waits, oldest first.
    pub waiters: Vec<Waiter>,
    /// The sites of the last minute, most connection time first.
    pub totals: Vec<SiteTotal>,
    /// What was not recorded because a table was full: stacks, statements, sites.
    pub not_recorded: u64,
    /// Findings that could not be handed to the sinks because they were too slow.
    pub findings_dropped: u64,
}
