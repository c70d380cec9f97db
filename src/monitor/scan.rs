//! One pass of the watchdog.
//!
//! Responsible for the order: copy, judge, say. Not responsible for any of the three.

use std::sync::Weak;
use std::time::Duration;

use super::stall::{Heed, Runtime};
use super::{Inner, Monitor};
use crate::clock::Moment;
use crate::config::{Detail, Threshold};
use crate::finding::Kind;
use crate::judge;
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
    let is_raised = monitor.deescalate(Moment::now());
    if registry.is_quiet()
        && !monitor.is_exhausted()
        && !monitor.has_suspects()
        && !registry.pools().iter().any(|pool| pool.is_closing())
    {
        let now = Moment::now();
        let is_used_raw = registry
            .pools()
            .iter()
            .any(|pool| pool.may_be_used_raw(now));
        // A raised detail is lowered again also when nothing is out.
        return match is_raised || is_used_raw {
            true => Next::Scan(Watchdog::LONGEST),
            false => Next::Rest,
        };
    }
    let config = &monitor.0.config;
    let now = Moment::now();
    let mut snapshot = monitor.look(now);
    let verdict = judge::holds(&snapshot.holders);
    // Most passes find nothing to say, and then nobody reads what the sites have cost.
    if !verdict.claims.is_empty() || registry.somebody_waits() || !snapshot.closings.is_empty() {
        registry.add_totals(&mut snapshot, now);
    }
    let everything = monitor.detail() == Detail::Backtrace;
    if everything {
        registry.stacks.refresh();
    }
    let is_due_soon = verdict.next.is_some_and(|next| next <= Runtime::AHEAD);
    let runtime = match verdict.claims.is_empty() && !is_due_soon {
        true => Runtime::Runs,
        false => monitor.runtimes(now, Heed::of_hold(monitor.shortest_threshold())),
    };
    // Whom to blame is known when the probe has run, or is late.
    let asked = (runtime == Runtime::Asked && !verdict.claims.is_empty()).then_some(Runtime::SOON);
    let is_silent = runtime == Runtime::Silent;
    let stalled = runtime.sentence();
    let witness = monitor.scan_witness(&snapshot, &verdict.claims, now);
    let mut unheard = None;
    let claims: Vec<_> = verdict
        .claims
        .into_iter()
        .filter(|_| asked.is_none())
        .filter(|claim| {
            let waits = monitor.waits_for_witness(claim, &snapshot, now);
            unheard = unheard.or(waits.then_some(Runtime::SOON));
            !waits
        })
        .filter(|claim| everything || claim.kind.always_speaks())
        // While nothing can run, nothing can be given back.
        .filter(|claim| stalled.is_none() || claim.kind != Kind::OutlivedRequest)
        .collect();

    let mut door = monitor.0.door.lock();
    let interval = config.get_report_interval();
    // A look that judges nobody keeps nobody back, and does not begin a count anew: on a busy machine
    // there are several in each second.
    let (shown, limited) = match asked {
        Some(_) => Default::default(),
        None => {
            let shown = door.claims(&claims, &snapshot, interval, now);
            (shown, door.limited(now))
        }
    };
    let closings = door.closings(&snapshot, config.get_wait(), now);
    let claimed = shown.claimed.iter();
    registry.claim(claimed.map(|(holder, finding)| (*holder, finding.0)));
    // After the claims: a holder that ended in the meantime is among these.
    let returned = door.returned(registry.take_ended(), &snapshot);
    drop(door);
    if let Some(groups) = limited.groups {
        monitor.0.reporter.note(groups_left_out(groups));
    }
    for mut finding in [shown.findings, closings.findings, returned]
        .into_iter()
        .flatten()
    {
        if let Some(stalled) = stalled
            .as_ref()
            .filter(|_| finding.kind != Kind::ReturnedLate)
        {
            finding.headline = format!("{stalled}; {}", finding.headline);
            finding.runtime = Some(stalled.clone());
        }
        if stalled.is_some() || is_silent {
            finding.remedy = None;
        }
        monitor.0.reporter.say(finding);
    }
    monitor.scan_suspects();
    let returns = monitor.scan_returns(now);
    let waits = monitor.scan_waits(&snapshot, now);
    let next = [
        verdict.next.map(Runtime::pace),
        asked,
        witness,
        unheard,
        shown.next,
        closings.next,
        limited.next,
        waits,
        returns,
    ]
    .into_iter()
    .flatten()
    .min()
    .unwrap_or(Watchdog::LONGEST);
    // A holder that comes after this scan is due no sooner than the shortest threshold. It is looked
    // at before that, so that the runtime has been probed by then.
    let seen = monitor.shortest_threshold() / 2;
    Next::Scan(next.min(seen).min(monitor.shortest_wait()))
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
    /// A waiter is looked at several times before it gives up.
    fn first_look(&self) -> Duration {
        let pools = self.0.registry.pools();
        let timeouts = pools.iter().map(|pool| pool.acquire_timeout() / 5);
        timeouts.min().unwrap_or(Duration::MAX)
    }

    /// Nobody who waits is worth a look in less time than this.
    fn shortest_wait(&self) -> Duration {
        self.0.config.get_wait().min(self.first_look())
    }

    /// No holder can become overdue in less time than this.
    fn shortest_threshold(&self) -> Duration {
        let limits = self.limits();
        let fixed = match limits.threshold {
            Threshold::Fixed(threshold) => threshold,
            Threshold::Auto => Duration::from_secs(1),
        };
        fixed
            .min(limits.idle_in_transaction.unwrap_or(fixed))
            .min(self.0.registry.shortest_policy())
    }
}
