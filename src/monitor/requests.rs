//! How requests ended, and what they were doing when they were cut.
//!
//! Responsible for counting. Not responsible for noticing an end: the layer does that.

#[cfg(feature = "tower")]
use super::Listed;
use super::Monitor;
#[cfg(feature = "tower")]
use crate::registry::Cut;
use crate::scope::RequestCounts;
#[cfg(feature = "tower")]
use crate::scope::{Outcome, Scope};
use crate::sync::atomic::{AtomicU64, Ordering};

/// In what the checkouts of cut requests were, since the monitor was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CancelCounts {
    /// No statement ran on it.
    pub idle: u64,
    /// In `BEGIN` or `SAVEPOINT`.
    pub begin: u64,
    /// In a statement, or its rows had not all been read.
    pub statement: u64,
    /// In `COMMIT`: whether the data is there is not known to the caller.
    pub commit: u64,
    /// In `ROLLBACK`.
    pub rollback: u64,
    /// Lent as a raw connection: what ran there was not seen.
    pub lent: u64,
}

#[derive(Debug, Default)]
pub(super) struct Cuts {
    idle: AtomicU64,
    begin: AtomicU64,
    statement: AtomicU64,
    commit: AtomicU64,
    rollback: AtomicU64,
    lent: AtomicU64,
}

impl Cuts {
    #[cfg(feature = "tower")]
    pub(super) fn count(&self, cut: Cut) {
        let counter = match cut {
            Cut::Idle => &self.idle,
            Cut::Begin => &self.begin,
            Cut::Statement => &self.statement,
            Cut::Commit => &self.commit,
            Cut::Rollback => &self.rollback,
            Cut::Lent => &self.lent,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> CancelCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CancelCounts {
            idle: of(&self.idle),
            begin: of(&self.begin),
            statement: of(&self.statement),
            commit: of(&self.commit),
            rollback: of(&self.rollback),
            lent: of(&self.lent),
        }
    }
}

impl Monitor {
    /// How the requests that passed [`Monitor::layer`] ended.
    pub fn requests(&self) -> RequestCounts {
        self.0.requests.read()
    }

    /// What the requests that were cut were doing on the connections they held.
    ///
    /// A client that goes away is normal, so this is a counter and no finding. A request that held
    /// nothing counts in [`Monitor::requests`] alone, one that held two counts twice here.
    pub fn cancelled(&self) -> CancelCounts {
        self.0.cut.read()
    }

    #[cfg(feature = "tower")]
    pub(crate) fn request_started(&self, scope: &Scope) -> Listed {
        self.0.under_way.enter(scope)
    }

    #[cfg(feature = "tower")]
    pub(crate) fn request_ended(&self, listed: Listed, scope: &Scope, outcome: Outcome) {
        self.0.under_way.leave(listed, scope);
        self.0.requests.count(outcome);
        if outcome == Outcome::Cancelled {
            // What it holds is still there: it is dropped after this.
            for cut in self.0.registry.cuts(scope.id()) {
                self.0.cut.count(cut);
            }
        }
    }
}
