//! Whether an acquire that is pending waits for a place, or for the connection that it has.
//!
//! sqlx does not tell: with its ping every acquire is pending once. Responsible for deciding it at
//! the first poll, exactly, since an acquire that waits may never be polled again. Not responsible
//! for the record of a waiter.

use super::pool::PoolRecord;
use crate::sync::atomic::Ordering;

/// An acquire in its first poll. Counted, because on another thread it may have a permit already
/// and its connection not yet.
#[must_use]
pub(crate) struct Asking<'p>(&'p PoolRecord);

impl PoolRecord {
    /// Counts an acquire whose first poll begins.
    pub(crate) fn asks(&self) -> Asking<'_> {
        self.asking.fetch_add(1, Ordering::AcqRel);
        Asking(self)
    }
}

impl Asking<'_> {
    /// Whether all that is free is meant for others: then who is pending waits for a place.
    ///
    /// sqlx hands a permit to the oldest waiter, who takes its connection only when it is polled. As
    /// long as it is not, the connection counts as idle, and is not to be had.
    pub(crate) fn finds_nothing_free(&self) -> bool {
        // Before what is free is read: who ends in between has left less.
        let waiting = self.0.waiting.load(Ordering::Acquire);
        let asking = self.0.asking.load(Ordering::Acquire);
        self.0.free() < waiting.saturating_add(asking)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.fetch_sub(1, Ordering::AcqRel);
    }
}
