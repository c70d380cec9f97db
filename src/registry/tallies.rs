//! How often a pool failed somebody, and how often something was rolled back on it.
//!
//! Responsible for counting since the pool was first watched, at any detail. Nothing here is on the
//! path of a checkout that goes well. Not responsible for what is said about it: see `finding`.

use crate::sync::atomic::{AtomicU64, Ordering};

/// How often things happened on one pool since it was first watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolCounts {
    /// Acquires that failed because no connection was free within the acquire timeout. sqlx says the
    /// same when no connection could be opened.
    pub timeouts: u64,
    /// Errors of connecting, as far as anybody heard of them: acquires that failed with one, and
    /// failed attempts of leaktrace's own while acquires wait or time out though places are left, at
    /// most one of them in two seconds. None of its own at detail `off`.
    pub connect_errors: u64,
    /// Transactions that were rolled back, by why.
    pub rollbacks: RollbackCounts,
}

/// Transactions that ended without a commit, by why. Savepoints do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RollbackCounts {
    /// By `rollback()`, also the one that [`Pool::transaction`](crate::Pool::transaction) does after an
    /// `Err`.
    pub asked: u64,
    /// By `discard()`.
    pub discarded: u64,
    /// The guard was dropped while open, without a word: an early return by `?`, a panic, a
    /// cancelled request.
    pub dropped: u64,
    /// A begin was cut in flight, and a transaction was found open on the way back. A commit that was
    /// cut is none: whether it arrived is not known (`commit_unknown`).
    pub cut: u64,
    /// By the server: a commit of a transaction that PostgreSQL had aborted.
    pub aborted: u64,
    /// Begun by text, on a raw loan or on the raw pool, and found open on the way back.
    pub unseen: u64,
}

/// Why a transaction was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollback {
    Asked,
    Discarded,
    Dropped,
    Cut,
    Aborted,
    Unseen,
}

#[derive(Debug, Default)]
pub(crate) struct Tallies {
    timeouts: AtomicU64,
    connect_errors: AtomicU64,
    asked: AtomicU64,
    discarded: AtomicU64,
    dropped: AtomicU64,
    cut: AtomicU64,
    aborted: AtomicU64,
    unseen: AtomicU64,
}

impl Tallies {
    pub(crate) fn timed_out(&self) {
        self.timeouts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn could_not_connect(&self) {
        self.connect_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rolled_back(&self, why: Rollback) {
        let tally = match why {
            Rollback::Asked => &self.asked,
            Rollback::Discarded => &self.discarded,
            Rollback::Dropped => &self.dropped,
            Rollback::Cut => &self.cut,
            Rollback::Aborted => &self.aborted,
            Rollback::Unseen => &self.unseen,
        };
        tally.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> PoolCounts {
        let of = |tally: &AtomicU64| tally.load(Ordering::Relaxed);
        PoolCounts {
            timeouts: of(&self.timeouts),
            connect_errors: of(&self.connect_errors),
            rollbacks: RollbackCounts {
                asked: of(&self.asked),
                discarded: of(&self.discarded),
                dropped: of(&self.dropped),
                cut: of(&self.cut),
                aborted: of(&self.aborted),
                unseen: of(&self.unseen),
            },
        }
    }
}
