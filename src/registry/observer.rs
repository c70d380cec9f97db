//! Who hears of each checkout while the service runs.
//!
//! Responsible for the one place where an observer stands, and for its panics. Not responsible for
//! what it does with it, or for counters: those are read when somebody wants them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Duration;

use super::cell::Finished;
use super::holder::{HolderKind, ScopeInfo};
use super::pool::PoolRecord;
use crate::site::Location;

/// Hears of every checkout of a monitor, at any detail: for histograms, which no counter can give.
///
/// Set once, with [`Monitor::observe`](crate::Monitor::observe).
///
/// # Cost
/// Without an observer a checkout costs two loads for it, one at its grant and one at its end. With
/// one, two calls; no clock is read for them and nothing is allocated. `granted` is called in the
/// task that acquires, before it gets the connection: do not block there. `released` is called where
/// the connection's way back ends, which is rarely the user's task.
///
/// # Panics
/// A panic of an observer is caught and ends there: both calls may come from a drop.
pub trait CheckoutObserver: Send + Sync {
    /// A connection was granted.
    fn granted(&self, _grant: &Grant<'_>) {}

    /// A checkout is over: its connection is back, closed or given away. Never called for one that
    /// was given away with its permit (`leak`).
    fn released(&self, _release: &Release<'_>) {}
}

/// A connection that was granted; see [`CheckoutObserver`].
#[derive(Clone, Copy)]
pub struct Grant<'a> {
    pool: &'a PoolRecord,
    kind: HolderKind,
    waited: Duration,
}

impl<'a> Grant<'a> {
    pub(crate) fn new(pool: &'a PoolRecord, kind: HolderKind, waited: Duration) -> Self {
        Self { pool, kind, waited }
    }

    /// The pool's name.
    pub fn pool(&self) -> &'a str {
        &self.pool.name
    }

    /// What was asked for.
    pub fn kind(&self) -> HolderKind {
        self.kind
    }

    /// How long it had waited. Zero when a connection was there at once; opening or testing one
    /// counts as waiting.
    pub fn waited_for(&self) -> Duration {
        self.waited
    }
}

/// A checkout that is over; see [`CheckoutObserver`].
#[derive(Clone, Copy)]
pub struct Release<'a> {
    pool: &'a PoolRecord,
    over: &'a Finished,
}

impl<'a> Release<'a> {
    pub(super) fn new(pool: &'a PoolRecord, over: &'a Finished) -> Self {
        Self { pool, over }
    }

    /// The pool's name.
    pub fn pool(&self) -> &'a str {
        &self.pool.name
    }

    /// What had been checked out.
    pub fn kind(&self) -> HolderKind {
        self.over.kind
    }

    /// How long it was held: from the grant to the drop of its guard, without the way back.
    pub fn held_for(&self) -> Duration {
        self.over.held_for
    }

    /// The label of the pool handle it came through.
    pub fn label(&self) -> Option<&'static str> {
        self.over.label
    }

    /// The line that checked it out. `None` for a pooled statement, and at detail `off`.
    pub fn acquired_by(&self) -> Option<Location> {
        self.over.acquired_by.map(Location::from)
    }

    /// The request or job that it served.
    ///
    /// # Cost
    /// Allocates two texts.
    pub fn scope(&self) -> Option<ScopeInfo> {
        self.over.scope.as_ref().map(ScopeInfo::of)
    }
}

impl fmt::Debug for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("pool", &self.pool())
            .field("kind", &self.kind)
            .field("waited_for", &self.waited)
            .finish()
    }
}

impl fmt::Debug for Release<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release")
            .field("pool", &self.pool())
            .field("kind", &self.kind())
            .field("held_for", &self.held_for())
            .finish_non_exhaustive()
    }
}

/// A monitor has one observer, and this one has it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this monitor has an observer already: set it once, and clone what you made of it")]
#[non_exhaustive]
pub struct AlreadyObserved;

/// The place of the observer.
#[derive(Default)]
pub(crate) struct Observed(OnceLock<Box<dyn CheckoutObserver>>);

impl Observed {
    pub(crate) fn set(&self, by: Box<dyn CheckoutObserver>) -> Result<(), AlreadyObserved> {
        self.0.set(by).map_err(|_| AlreadyObserved)
    }

    /// Tells the observer, if there is one. What it panics with ends here.
    #[inline]
    pub(crate) fn tell(&self, what: impl FnOnce(&dyn CheckoutObserver)) {
        if let Some(observer) = self.0.get() {
            let _ = catch_unwind(AssertUnwindSafe(|| what(&**observer)));
        }
    }
}
