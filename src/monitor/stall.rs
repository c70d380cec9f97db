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
    /// As long before a holder becomes overdue the first probe is sent: longer than it takes to be
    /// late, so that by then it has run or is late.
    pub(super) const AHEAD: Duration = Duration::from_secs(1);
    /// As long before it the last one is sent: longer than a finding waits for it.
    const LAST: Duration = Duration::from_millis(150);

    /// When to look again for a holder that becomes overdue in `time`, so that both are sent.
    pub(super) fn pace(time: Duration) -> Duration {
        [Self::AHEAD, Self::LAST]
            .into_iter()
            .find_map(|ahead| time.checked_sub(ahead).filter(|left| !left.is_zero()))
            .unwrap_or(time)
    }

    pub(super) fn sentence(self) -> Option<String> {
        match self {
            Self::Blocked(sentence) => Some(sentence),
            Self::Runs | Self::Asked | Self::Silent => None,
        }
    }
}

/// Which answer to a probe is heeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heed {
    /// One to a probe that was sent longer ago says nothing.
    fresh: Duration,
    /// As long a finding waits for one: then the line is worth more than the remedy.
    patience: Duration,
}

impl Heed {
    /// Above what a busy machine takes to run a task.
    const PATIENCE: Duration = Duration::from_millis(100);

    /// For what is so at this moment.
    pub(super) const NOW: Self = Self {
        fresh: Duration::from_millis(50),
        patience: Self::PATIENCE,
    };

    /// For a holder that was out for `threshold`: an answer to the last probe before it was due is
    /// enough, so that its finding waits for none.
    pub(super) fn of_hold(threshold: Duration) -> Self {
        Self {
            // Many looks long: one that is stale before the next look would be asked for without end.
            fresh: (threshold / 4 * 3).clamp(Self::NOW.fresh, Runtime::LAST + Self::NOW.fresh),
            patience: (threshold / 4).min(Self::PATIENCE),
        }
    }
}

impl Monitor {
    /// Probes the runtimes of all pools: the worst answer.
    pub(super) fn runtimes(&self, now: Moment, heed: Heed) -> Runtime {
        let mut worst = Runtime::Runs;
        for pool in self.0.registry.pools() {
            match self.runtime(&pool, now, heed) {
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
    pub(super) fn runtime(&self, pool: &PoolRecord, now: Moment, heed: Heed) -> Runtime {
        let late = match pool.probe(now, heed.fresh) {
            Pulse::Runs => return Runtime::Runs,
            Pulse::Asked(time) if time < heed.patience => return Runtime::Asked,
            Pulse::Asked(_) => return Runtime::Silent,
            Pulse::Late(late) => late,
        };
        // What a walk of ours waited, while names were being read, is nobody else's fault.
        if late.saturating_sub(walk_waited(late, now)) < Pulse::LATE {
            return Runtime::Silent;
        }
        // The requests of this monitor, the jobs on this runtime, and whatever carries either of them.
        let mut scopes: Vec<Scope> = self.0.under_way.list();
        if let Some(runtime) = pool.runtime() {
            scopes.extend(inside_a_poll(runtime.id()));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_outlives_the_next_look_at_any_threshold() {
        for millis in [1, 5, 20, 100, 1_000, 10_000] {
            let heed = Heed::of_hold(Duration::from_millis(millis));
            assert!(heed.fresh >= Runtime::SOON * 4, "{millis} ms: {heed:?}");
            assert!(heed.patience <= Heed::PATIENCE, "{millis} ms: {heed:?}");
        }
    }

    #[test]
    fn a_holder_is_looked_at_ahead_of_its_threshold_and_shortly_before_it() {
        let ms = Duration::from_millis;
        assert_eq!(Runtime::pace(ms(10_000)), ms(9_000));
        assert_eq!(Runtime::pace(ms(1_000)), ms(850));
        assert_eq!(Runtime::pace(ms(150)), ms(150));
        assert_eq!(Runtime::pace(ms(20)), ms(20));
    }
}
