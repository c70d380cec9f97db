//! Holders that are out for too long.
//!
//! Responsible for `held_too_long`, `idle_in_transaction` and `outlived_request`. The rule of sight:
//! a claim never says more than was seen, so a transaction is called idle only when that is known.

use std::time::Duration;

use crate::finding::Kind;
use crate::registry::{Holder, HolderId, Phase};

/// One thing that may be said of one holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) holder: HolderId,
    pub(crate) kind: Kind,
    /// How often the limit has been passed, rounded down to 1, 10, 100 or 1 000: each is worth
    /// saying once.
    pub(crate) milestone: u32,
}

/// What is claimed now, and after how much time the next claim may come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) claims: Vec<Claim>,
    pub(crate) next: Option<Duration>,
}

impl Verdict {
    fn wake_in(&mut self, time: Duration) {
        self.next = Some(self.next.map_or(time, |next| next.min(time)));
    }
}

/// Judges each holder by itself. At most one claim a holder: the one that tells most.
pub(crate) fn holds(holders: &[Holder]) -> Verdict {
    let mut verdict = Verdict::default();
    for holder in holders {
        if holder.phase != Phase::Held || holder.unreported {
            continue;
        }
        let held = Passed::of(holder.running_for, holder.threshold);
        let idle = holder
            .idle_limit
            .filter(|_| holder.is_idle_in_transaction())
            .map(|limit| Passed::of(holder.activity_running_for, limit));
        verdict.wake_in(held.next);
        let outlived = holder.scope_ended_for.map(|ended| {
            let outlived = ended > holder.grace;
            if !outlived {
                verdict.wake_in(holder.grace - ended);
            }
            outlived
        });
        if let Some(idle) = &idle {
            verdict.wake_in(idle.next);
        }
        // Idle since before its threshold, and not yet for its limit: the claim that tells more comes
        // soon, and a finding once made would only be upgraded in silence.
        let soon = idle.as_ref().is_some_and(|idle| {
            let began = holder
                .running_for
                .saturating_sub(holder.activity_running_for);
            idle.milestone.is_none() && began < holder.threshold
        });
        let idle = idle.and_then(|idle| idle.milestone);
        let held_milestone = held.milestone.filter(|_| !soon);
        // The one that tells most: outlived > idle > held.
        let claim = match (outlived, idle, held_milestone) {
            (Some(true), _, held) => Some((Kind::OutlivedRequest, held.unwrap_or(1))),
            (_, Some(milestone), _) => Some((Kind::IdleInTransaction, milestone)),
            (_, None, Some(milestone)) => Some((Kind::HeldTooLong, milestone)),
            (_, None, None) => None,
        };
        verdict.claims.extend(claim.map(|(kind, milestone)| Claim {
            holder: holder.id,
            kind,
            milestone,
        }));
    }
    verdict
}

/// After how much time the next limit of this holder is reached, if nothing changes.
pub(crate) fn due_in(holder: &Holder) -> Duration {
    let held = Passed::of(holder.running_for, holder.threshold).next;
    let idle = holder
        .idle_limit
        .filter(|_| holder.is_idle_in_transaction())
        .map(|limit| Passed::of(holder.activity_running_for, limit).next);
    let outlives = holder
        .scope_ended_for
        .and_then(|ended| holder.grace.checked_sub(ended));
    idle.into_iter().chain(outlives).fold(held, Duration::min)
}

/// Which multiple of a limit was passed, and when the next one will be.
struct Passed {
    milestone: Option<u32>,
    next: Duration,
}

impl Passed {
    const MILESTONES: [u32; 4] = [1, 10, 100, 1000];

    fn of(time: Duration, limit: Duration) -> Self {
        let milestone = Self::MILESTONES
            .into_iter()
            .rev()
            .find(|times| time > limit.saturating_mul(*times));
        let next = Self::MILESTONES
            .into_iter()
            .map(|times| limit.saturating_mul(times))
            .find(|due| *due >= time)
            .map_or(Duration::MAX, |due| due - time);
        Self { milestone, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Activity;
    use std::time::SystemTime;

    const SECOND: Duration = Duration::from_secs(1);
    const TICK: Duration = Duration::from_nanos(1);

    fn idle() -> Activity {
        Activity::Idle {
            since: SystemTime::UNIX_EPOCH,
        }
    }

    fn kinds(holder: &Holder) -> Vec<Kind> {
        holds(std::slice::from_ref(holder))
            .claims
            .iter()
            .map(|claim| claim.kind)
            .collect()
    }

    #[test]
    fn a_holder_is_claimed_one_tick_after_its_threshold_and_not_at_it() {
        let mut holder = Holder::harmless();
        holder.threshold = SECOND * 10;
        holder.running_for = SECOND * 10;
        assert_eq!(kinds(&holder), []);
        holder.running_for += TICK;
        assert_eq!(kinds(&holder), [Kind::HeldTooLong]);
    }

    #[test]
    fn a_transaction_known_to_be_idle_is_called_idle() {
        let mut holder = Holder::harmless();
        holder.in_transaction = true;
        holder.activity = idle();
        holder.idle_limit = Some(SECOND * 5);
        holder.running_for = SECOND * 100;
        holder.activity_running_for = SECOND * 4;
        assert_eq!(kinds(&holder), [Kind::HeldTooLong]);
        holder.activity_running_for = SECOND * 5 + TICK;
        assert_eq!(kinds(&holder), [Kind::IdleInTransaction]);
    }

    #[test]
    fn a_transaction_that_will_soon_be_called_idle_is_not_called_held_before() {
        let mut holder = Holder::harmless();
        holder.in_transaction = true;
        holder.activity = idle();
        holder.threshold = SECOND;
        holder.idle_limit = Some(SECOND);
        holder.running_for = SECOND + TICK * 5;
        holder.activity_running_for = SECOND - TICK * 5;
        assert_eq!(kinds(&holder), [], "its BEGIN took ten ticks");
        assert_eq!(holds(&[holder.clone()]).next, Some(TICK * 5));
        holder.running_for += TICK * 6;
        holder.activity_running_for += TICK * 6;
        assert_eq!(kinds(&holder), [Kind::IdleInTransaction]);
    }

    #[test]
    fn a_transaction_at_work_beyond_its_threshold_is_called_held_between_two_statements() {
        let mut holder = Holder::harmless();
        holder.in_transaction = true;
        holder.activity = idle();
        holder.threshold = SECOND;
        holder.idle_limit = Some(SECOND);
        holder.running_for = SECOND + SECOND / 10;
        holder.activity_running_for = SECOND / 10;
        assert_eq!(kinds(&holder), [Kind::HeldTooLong]);
    }

    #[test]
    fn a_transaction_whose_activity_is_unknown_is_never_called_idle() {
        let mut holder = Holder::harmless();
        holder.in_transaction = true;
        holder.idle_limit = Some(SECOND);
        holder.activity_running_for = SECOND * 100;
        let since = SystemTime::UNIX_EPOCH;
        for activity in [Activity::Unknown { since }, Activity::InFlight { since }] {
            holder.activity = activity;
            assert_eq!(kinds(&holder), []);
        }
    }

    #[test]
    fn a_holder_outlives_its_request_only_after_the_grace() {
        let mut holder = Holder::harmless();
        holder.grace = SECOND;
        assert_eq!(kinds(&holder), [], "its request lives");
        holder.scope_ended_for = Some(SECOND);
        assert_eq!(kinds(&holder), []);
        holder.scope_ended_for = Some(SECOND + TICK);
        assert_eq!(kinds(&holder), [Kind::OutlivedRequest]);
        holder.phase = Phase::Returning;
        assert_eq!(kinds(&holder), [], "what is on its way back never counts");
    }

    #[test]
    fn a_connection_outside_of_a_transaction_may_be_idle() {
        let mut holder = Holder::harmless();
        holder.activity = idle();
        holder.idle_limit = Some(SECOND);
        holder.activity_running_for = SECOND * 100;
        assert_eq!(kinds(&holder), []);
    }

    #[test]
    fn what_is_unreported_returning_or_leaked_on_purpose_is_not_claimed() {
        let mut old = Holder::harmless();
        old.running_for = SECOND * 1000;
        assert_eq!(kinds(&old), [Kind::HeldTooLong]);
        for phase in [Phase::Returning, Phase::LeakedOnPurpose] {
            let mut holder = old.clone();
            holder.phase = phase;
            assert_eq!(kinds(&holder), []);
        }
        old.unreported = true;
        assert_eq!(kinds(&old), []);
    }

    #[test]
    fn the_next_claim_is_due_when_the_next_limit_is_reached() {
        let mut holder = Holder::harmless();
        holder.threshold = SECOND * 10;
        holder.running_for = SECOND * 3;
        assert_eq!(holds(&[holder.clone()]).next, Some(SECOND * 7));
        holder.running_for = SECOND * 11;
        assert_eq!(
            holds(&[holder.clone()]).next,
            Some(SECOND * 89),
            "ten times"
        );
        holder.in_transaction = true;
        holder.activity = idle();
        holder.idle_limit = Some(SECOND * 5);
        holder.activity_running_for = SECOND;
        assert_eq!(holds(&[holder]).next, Some(SECOND * 4));
    }

    #[test]
    fn each_power_of_ten_of_the_threshold_is_worth_saying() {
        let mut holder = Holder::harmless();
        holder.threshold = SECOND;
        for (running_for, milestone) in [(2, 1), (10, 1), (11, 10), (101, 100), (5000, 1000)] {
            holder.running_for = SECOND * running_for;
            assert_eq!(holds(&[holder.clone()]).claims[0].milestone, milestone);
        }
    }
}
