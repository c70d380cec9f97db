//! What is recorded when it happens: each checkout, each finding.
//!
//! Responsible for the histograms and for the counter of findings. Not responsible for what is read
//! when somebody wants it (`publish`). Keeps no monitor: the monitor keeps this.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use ::metrics::Histogram;

use super::labels::Capped;
use super::names::{FINDINGS, POOL, ROUTE, SITE, USE_TIME, WAIT_TIME};
use super::outlet::{Outlet, Tag};
use crate::{CheckoutObserver, Finding, FindingSink, Grant, HolderKind, Kind, Release, Severity};

/// What there is to say where a checkout has no line or no scope.
const NONE: &str = "(none)";
const STATEMENT: &str = "(statement)";

pub(super) struct Events {
    pub(super) outlet: Outlet,
    pub(super) routes: Option<Capped>,
    pub(super) sites: Option<Capped>,
    /// By the name of the pool: a handle is found faster here than in a recorder.
    times: RwLock<HashMap<String, Times>>,
}

/// The histograms of one pool.
#[derive(Clone)]
struct Times {
    wait: Histogram,
    /// `None` where the labels are decided by the checkout.
    held: Option<Histogram>,
}

impl Events {
    pub(super) fn new(outlet: Outlet, routes: Option<usize>, sites: Option<usize>) -> Self {
        Self {
            outlet,
            routes: routes.map(Capped::new),
            sites: sites.map(Capped::new),
            times: RwLock::default(),
        }
    }

    /// Asks the recorder for the handles of a pool again: it may have been installed after the first
    /// checkout, or have forgotten what was idle for long.
    pub(super) fn refresh(&self, pool: &str) {
        self.registered(pool);
    }

    fn registered(&self, pool: &str) -> Times {
        let times = Times {
            wait: self.outlet.histogram(WAIT_TIME, &[(POOL, pool)]),
            held: (self.routes.is_none() && self.sites.is_none())
                .then(|| self.outlet.histogram(USE_TIME, &[(POOL, pool)])),
        };
        let mut known = self.times.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(pool.to_string(), times.clone());
        times
    }

    /// Calls `record` with the histograms of a pool.
    fn with(&self, pool: &str, record: impl FnOnce(&Times)) {
        let known = self.times.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(pool) {
            Some(times) => record(times),
            None => {
                drop(known);
                record(&self.registered(pool));
            }
        }
    }

    /// The histogram of a checkout whose labels are its own.
    fn held(&self, release: &Release<'_>) -> Histogram {
        let route = self.routes.as_ref().map(|routes| {
            let scope = release.scope();
            routes.shown(scope.map_or_else(|| NONE.to_string(), |scope| scope.route))
        });
        let site = self.sites.as_ref().map(|sites| {
            sites.shown(match (release.acquired_by(), release.kind()) {
                (Some(line), _) => line.to_string(),
                (None, HolderKind::Statement) => STATEMENT.to_string(),
                (None, _) => NONE.to_string(),
            })
        });
        let mut tags: Vec<Tag<'_>> = vec![(POOL, release.pool())];
        tags.extend(route.as_deref().map(|route| (ROUTE, route)));
        tags.extend(site.as_deref().map(|site| (SITE, site)));
        self.outlet.histogram(USE_TIME, &tags)
    }

    /// Makes the series of every finding there may be, so that the first one is seen as a step from
    /// zero.
    pub(super) fn expect_findings(&self, pool: &str) {
        for kind in Kind::ALL {
            for severity in severities(*kind) {
                self.findings(pool, *kind, *severity).increment(0);
            }
        }
    }

    fn findings(&self, pool: &str, kind: Kind, severity: Severity) -> ::metrics::Counter {
        let tags = [
            (POOL, pool),
            ("kind", kind.as_str()),
            ("severity", word(severity)),
        ];
        self.outlet.counter(FINDINGS, &tags)
    }
}

/// How bad a finding of that kind can be.
fn severities(kind: Kind) -> &'static [Severity] {
    match kind {
        Kind::ReturnedLate => &[Severity::Info],
        Kind::LostWrites => &[Severity::Error],
        // Somebody waits, somebody failed, it is over.
        Kind::Exhausted => &[Severity::Warn, Severity::Error, Severity::Info],
        Kind::HeldTooLong
        | Kind::IdleInTransaction
        | Kind::OutlivedRequest
        | Kind::DirtyReturn
        | Kind::CommitUnknown
        | Kind::StuckReturn
        | Kind::CloseBlocked => &[Severity::Warn],
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warn => "warn",
        Severity::Error => "error",
    }
}

/// Hears of checkouts and findings for as long as the monitor lives.
pub(super) struct Listener(pub(super) Arc<Events>);

impl CheckoutObserver for Listener {
    fn granted(&self, grant: &Grant<'_>) {
        self.0
            .with(grant.pool(), |times| times.wait.record(grant.waited_for()));
    }

    fn released(&self, release: &Release<'_>) {
        self.0.with(release.pool(), |times| match &times.held {
            Some(held) => held.record(release.held_for()),
            None => self.0.held(release).record(release.held_for()),
        });
    }
}

impl FindingSink for Listener {
    fn finding(&self, finding: &Finding) {
        self.0
            .findings(&finding.pool, finding.kind, finding.severity)
            .increment(1);
    }
}
