//! Whether the runtime runs what it is given.
//!
//! Responsible for the sentence that heads a report when it does not: then no holder can go on, and
//! to blame one would mislead. Probes are sent only while something is overdue or waiting.

use std::time::Duration;

use super::Monitor;
use crate::clock::{Moment, span};
use crate::registry::{PoolRecord, Pulse};
use crate::scope::{Scope, inside_a_poll};
use crate::site::{text, walk_waited};

/// What is known of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    Runs,
    /// Not known yet: a probe has just been sent.
    Asked,
    /// The probe has not run for longer than a finding may wait, and is not late yet.
    Silent,
    /// It does not run what it is given; the sentence that says so.
    Blocked(String),
}

impl Runtime {
    /// How soon to look again when it is not known yet.
    pub(super) const SOON: Duration = Duration::from_millis(5);
    /// As long a finding waits for the probe: then the line is worth more than the remedy.
    const PATIENCE: Duration = Duration::from_millis(100);
    /// As long before a holder becomes overdue the probe is sent, so that it has run or is late by
    /// then.
    pub(super) const AHEAD: Duration = Duration::from_secs(1);

    pub(super) fn sentence(self) -> Option<String> {
        match self {
            Self::Blocked(sentence) => Some(sentence),
            Self::Runs | Self::Asked | Self::Silent => None,
        }
    }
}

impl Monitor {
    /// Probes the runtimes of all pools: the worst answer.
    pub(super) fn runtimes(&self, now: Moment) -> Runtime {
        let mut worst = Runtime::Runs;
        for pool in self.0.registry.pools() {
            match self.runtime(&pool, now) {
                Runtime::Runs => {}
                Runtime::Asked => worst = Runtime::Asked,
                Runtime::Silent if worst == Runtime::Runs => worst = Runtime::Silent,
                Runtime::Silent => {}
                blocked @ Runtime::Blocked(_) => return blocked,
            }
        }
        worst
    }

    /// Probes the runtime of this pool.
    pub(super) fn runtime(&self, pool: &PoolRecord, now: Moment) -> Runtime {
        let late = match pool.probe(now) {
            Pulse::Runs => return Runtime::Runs,
            Pulse::Asked(time) if time < Runtime::PATIENCE => return Runtime::Asked,
            Pulse::Asked(_) => return Runtime::Silent,
            Pulse::Late(late) => late,
        };
        // What a walk of ours waited, while names were being read, is nobody else's fault.
        if late.saturating_sub(walk_waited(late, now)) < Pulse::LATE {
            return Runtime::Silent;
        }
        // The requests of this monitor, the jobs of the process, and whatever carries either of them.
        let mut scopes: Vec<Scope> = self.0.scopes.iter().map(|scope| scope.clone()).collect();
        scopes.extend(inside_a_poll());
        scopes.sort_by_key(Scope::id);
        scopes.dedup_by_key(|scope| scope.id());
        let mut inside: Vec<(Duration, String)> = scopes
            .iter()
            .filter_map(|scope| {
                let since = now.since(scope.in_poll_since()?);
                let name = text::escape_text(scope.name(), 200).into_owned();
                (since * 2 > late).then_some((since, name))
            })
            .collect();
        inside.sort_by_key(|(since, _)| std::cmp::Reverse(*since));
        let mut sentence = format!("no worker ran our probe for {}", span(late));
        for (since, name) in inside.iter().take(3) {
            sentence += &format!(
                "; {name} has been inside one poll for {} (blocking call)",
                span(*since)
            );
        }
        Runtime::Blocked(sentence)
    }
}
