//! What pools tell their monitor.
//!
//! Responsible for recording it, as far as the detail asks for, and for waking the watchdog where it
//! has something to look at. Not responsible for what is made of it.

use std::sync::Arc;
use std::time::Duration;

use super::Monitor;
use crate::clock::Moment;
use crate::config::Detail;
use crate::registry::{
    Begun, Closing, Grant, HolderKind, Lease, Policy, PoolRecord, Slots, SpanInfo, Waiting,
};
use crate::scope::Scope;
use crate::site::{CallSite, SqlText, sql::Dialect};

impl Monitor {
    /// The shown form of a statement.
    pub(crate) fn statement(&self, sql: &str, dialect: Dialect) -> Arc<SqlText> {
        self.0.registry.statements.intern(sql, dialect)
    }

    /// Registers a checkout. What is recorded of it depends on the detail.
    pub(crate) fn lease(
        &self,
        slots: Arc<Slots>,
        kind: HolderKind,
        policy: Policy,
        acquired_by: Option<CallSite>,
        waited: Duration,
    ) -> Lease {
        let detail = self.detail();
        let known = detail != Detail::Off;
        let begun = Begun {
            kind,
            policy,
            waited,
            acquired_by: acquired_by.filter(|_| known),
            stack: (detail == Detail::Backtrace)
                .then(|| self.0.registry.stacks.capture(acquired_by))
                .flatten(),
            scope: known.then(Scope::current).flatten(),
            task: known.then(tokio::task::try_id).flatten(),
            span: known.then(SpanInfo::current).flatten(),
        };
        let lease = self.0.registry.lease(slots, begun, known);
        if known {
            self.0.watchdog.wake();
        }
        lease
    }

    /// A connection was granted, to be leased or for sqlx's own guard.
    #[inline]
    pub(crate) fn granted(&self, pool: &PoolRecord, kind: HolderKind, waited: Duration) {
        let grant = || Grant::new(pool, kind, waited);
        let observed = &self.0.registry.observed;
        observed.tell(|observer| observer.granted(&grant()));
    }

    pub(crate) fn wait(
        &self,
        pool: &Arc<PoolRecord>,
        kind: HolderKind,
        policy: Policy,
        acquired_by: Option<CallSite>,
        since: Moment,
    ) -> Waiting {
        let waiting = self.0.registry.wait(pool, kind, policy, acquired_by, since);
        self.0.watchdog.wake();
        waiting
    }

    /// A connection is on its way back: the watchdog keeps its limit, at any detail.
    pub(crate) fn returning(&self) {
        self.0.watchdog.wake();
    }

    /// Registers a call of `close()`; it is ended with [`PoolRecord::closed`] and the answer.
    pub(crate) fn closing(&self, pool: &PoolRecord, by: CallSite) -> u64 {
        let id = self.0.registry.new_id();
        let since = Moment::now();
        pool.closing(id, Closing { since, by });
        self.0.watchdog.wake_now();
        id
    }

    /// A handle of a pool was given this threshold.
    pub(crate) fn note_threshold(&self, threshold: Duration) {
        if self.0.registry.note_threshold(threshold) {
            // It may sleep for longer than that.
            self.0.watchdog.wake_now();
        }
    }

    /// The raw pool was handed out: somebody has to look how many connections it takes.
    pub(crate) fn handed_out(&self, pool: &PoolRecord, site: CallSite) {
        pool.handed_out(site);
        self.0.watchdog.wake();
    }
}
