//! The record of one acquire that has to wait.
//!
//! Responsible for who waits, since when, and how many. Not responsible for deciding that an
//! acquire waits: the pool's acquire future does that, because only it sees its polls.

use std::sync::Arc;
use std::time::Duration;

use super::holder::{HolderKind, ScopeInfo};
use super::pool::PoolRecord;
use super::{Policy, Registry};
use crate::clock::Moment;
use crate::scope::Scope;
use crate::site::{CallSite, Location, text};
use crate::sync::atomic::Ordering;

/// A copy of what is known of one acquire that waits.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Waiter {
    /// The pool's name.
    pub pool: String,
    /// What it wants.
    pub kind: HolderKind,
    /// The label of the pool handle it goes through.
    pub label: Option<String>,
    /// The line that waits. `None` for a pooled statement.
    pub acquired_by: Option<Location>,
    /// How long it has waited.
    #[cfg_attr(
        feature = "json",
        serde(rename = "waited_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub waited_for: Duration,
    /// The request or job it serves.
    pub scope: Option<ScopeInfo>,
}

pub(super) struct WaiterCell {
    pub(super) pool: Arc<PoolRecord>,
    kind: HolderKind,
    policy: Policy,
    acquired_by: Option<CallSite>,
    since: Moment,
    scope: Option<Scope>,
}

impl WaiterCell {
    pub(super) fn view(&self, now: Moment) -> Waiter {
        Waiter {
            pool: self.pool.name.clone(),
            kind: self.kind,
            label: self
                .policy
                .label
                .map(|label| text::escape_text(label, 100).into_owned()),
            acquired_by: self.acquired_by.map(Location::from),
            waited_for: now.since(self.since),
            scope: self.scope.as_ref().map(|scope| ScopeInfo {
                name: scope.name().to_string(),
                request_id: scope.request_id().map(str::to_string),
            }),
        }
    }
}

/// Keeps a waiter registered. Its drop ends the record.
#[must_use]
pub(crate) struct Waiting {
    registry: Arc<Registry>,
    cell: Arc<WaiterCell>,
    id: u64,
}

impl Registry {
    /// Registers an acquire that found no connection at once.
    pub(crate) fn wait(
        self: &Arc<Self>,
        pool: &Arc<PoolRecord>,
        kind: HolderKind,
        policy: Policy,
        acquired_by: Option<CallSite>,
        since: Moment,
    ) -> Waiting {
        pool.waiting.fetch_add(1, Ordering::AcqRel);
        let cell = Arc::new(WaiterCell {
            pool: Arc::clone(pool),
            kind,
            policy,
            acquired_by,
            since,
            scope: Scope::current(),
        });
        let id = self.new_id();
        self.waiters.insert(id, Arc::clone(&cell));
        Waiting {
            registry: Arc::clone(self),
            cell,
            id,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.registry.waiters.remove(&self.id);
        self.cell.pool.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
