//! How many requests ended, and how.
//!
//! Responsible for counting what is normal and therefore no finding: a client that went away.

use super::Outcome;
use crate::sync::atomic::{AtomicU64, Ordering};

/// How the requests that passed a monitor's layer ended, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RequestCounts {
    /// The whole answer was handed over.
    pub completed: u64,
    /// Dropped before that: a client that went away, a timeout.
    pub cancelled: u64,
    /// A panic went through.
    pub panicked: u64,
    /// The service or the response body returned an error.
    pub errored: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    completed: AtomicU64,
    cancelled: AtomicU64,
    panicked: AtomicU64,
    errored: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Completed => &self.completed,
            Outcome::Cancelled => &self.cancelled,
            Outcome::Panicked => &self.panicked,
            Outcome::Errored => &self.errored,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> RequestCounts {
        RequestCounts {
            completed: self.completed.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
            panicked: self.panicked.load(Ordering::Relaxed),
            errored: self.errored.load(Ordering::Relaxed),
        }
    }
}
