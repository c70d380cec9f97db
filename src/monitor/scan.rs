//! One pass of the watchdog.
//!
//! Responsible for the order: copy, judge, say. Not responsible for any of the three.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Inner, Monitor};
use crate::clock::Moment;
use crate::config::{Detail, Threshold};
use crate::finding::Kind;
use crate::judge;
use crate::registry::PoolRecord;
use crate::sink::Door;
use crate::watchdog::{Next, Stop, Watchdog};

/// One pass of the watchdog: copy, judge, say.
pub(super) fn scan(monitor: &Weak<Inner>, stop: Option<Stop>) -> Next {
    let Some(inner) = monitor.upgrade() else {
        return Next::End;
    };
    if let Some((from, to)) = stop {
        inner.stops.lock().record(from, to);
    }
    let monitor = Monitor(inner);
    let registry = &monitor.0.registry;
    monitor.deescalate(Moment::now());
    if registry.is_quiet()
        && !monitor.is_exhausted()
        && !registry.pools().iter().any(|pool| pool.is_closing())
    {
        let now = Moment::now();
        let raw = |pool: &Arc<PoolRecord>| pool.may_be_used_raw(now);
        return match registry.pools().iter().filter(|pool| raw(pool)).count() {
            0 => Next::Rest,
            _ => Next::Scan(Watchdog::LONGEST),
        };
    }
    let config = &monitor.0.config;
    let now = Moment::now();
    let snapshot = monitor.snapshot(now);
    let verdict = judge::holds(&snapshot.holders);
    let everything = monitor.detail() == Detail::Backtrace;
    let stalled = match verdict.claims.is_empty() {
        true => None,
        false => registry
            .pools()
            .iter()
            .find_map(|pool| monitor.probe(pool, now)),
    };
    let claims: Vec<_> = verdict
        .claims
        .into_iter()
        .filter(|claim| everything || claim.kind.always_speaks())
        // While nothing can run, nothing can be given back.
        .filter(|claim| stalled.is_none() || claim.kind != Kind::OutlivedRequest)
        .collect();

    let mut door = monitor.0.door.lock();
    let interval = config.get_report_interval();
    let shown = door.claims(&claims, &snapshot, interval, now);
    let closings = door.closings(&snapshot, config.get_wait(), now);
    for (holder, finding) in &shown.claimed {
        registry.claim(*holder, finding.0);
    }
    // After the claims: a holder that ended in the meantime is among these.
    let returned = door.returned(registry.take_ended(), &snapshot);
    let limited = door.limited(now);
    drop(door);
    if let Some(groups) = limited.groups {
        monitor.0.reporter.note(groups_left_out(groups));
    }
    for mut finding in [shown.findings, closings.findings, returned]
        .into_iter()
        .flatten()
    {
        if stalled.is_some() {
            finding.runtime.clone_from(&stalled);
            finding.remedy = None;
        }
        monitor.0.reporter.say(finding);
    }
    let waits = monitor.scan_waits(&snapshot, now);
    let next = [verdict.next, shown.next, closings.next, limited.next, waits]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(Watchdog::LONGEST);
    // A holder that comes after this scan is due no sooner than the shortest threshold.
    Next::Scan(next.min(monitor.shortest_threshold()))
}

/// What is said instead of the findings beyond the limit by minute.
fn groups_left_out(count: usize) -> String {
    let groups = if count == 1 { "group" } else { "groups" };
    format!(
        "{count} more {groups} of holders overdue, not reported one by one ({} reports a minute); Monitor::report() lists all",
        Door::A_MINUTE
    )
}

impl Monitor {
    /// No holder can become overdue in less time than this.
    fn shortest_threshold(&self) -> Duration {
        let limits = self.limits();
        let fixed = match limits.threshold {
            Threshold::Fixed(threshold) => threshold,
            Threshold::Auto => Duration::from_secs(1),
        };
        fixed
            .min(limits.idle_in_transaction.unwrap_or(fixed))
            .min(self.0.config.get_wait())
            .min(self.0.registry.shortest_policy())
    }
}
