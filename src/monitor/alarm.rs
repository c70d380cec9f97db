//! The findings about an exhaustion.
//!
//! Responsible for putting together what was seen when a pool failed somebody, or was about to. Not
//! responsible for noticing it or for when to say so (`exhaustion`).

use std::time::Duration;

use crate::clock::{span, time_of_day};
use crate::finding::{Cause, Finding, FindingId, Kind, Severity};
use crate::judge::{Evidence, causes};
use crate::registry::{PoolInfo, Snapshot, Waiter};
use crate::sink::{Repeats, Stage};

/// A finding to be made, with all that it needs.
pub(super) struct Alarm {
    pub(super) id: FindingId,
    pub(super) stage: Stage,
    pub(super) pool: PoolInfo,
    pub(super) snapshot: Snapshot,
    pub(super) evidence: Evidence,
    /// Whose acquire failed, or who gave up.
    pub(super) failed: Option<Waiter>,
}

pub(super) fn finding(alarm: Alarm) -> Finding {
    let Alarm {
        id,
        stage,
        pool,
        snapshot,
        evidence,
        failed,
    } = alarm;
    let causes = causes(&pool, &snapshot, &evidence);
    let headline = headline(&pool, stage, failed.as_ref(), &causes);
    let mut waiters = snapshot.waiters;
    waiters.retain(|waiter| waiter.pool_id == pool.id);
    let count = waiters.len() as u64;
    if stage == Stage::Waiting {
        waiters.extend(failed);
    }
    let mut holders = snapshot.holders;
    holders.retain(|holder| holder.pool_id == pool.id);
    Finding {
        severity: match stage {
            Stage::Waiting => Severity::Warn,
            Stage::TimedOut => Severity::Error,
        },
        runtime: evidence.stalled,
        holders,
        waiters,
        totals: snapshot.totals,
        causes,
        count: count.max(1),
        ..Finding::new(id, Kind::Exhausted, &pool, headline)
    }
}

pub(super) fn headline(
    pool: &PoolInfo,
    stage: Stage,
    failed: Option<&Waiter>,
    causes: &[Cause],
) -> String {
    let mut line = format!("pool \"{}\" exhausted: ", pool.name);
    if let Some(failed) = failed {
        let site = failed.acquired_by.as_ref().map_or_else(
            || "a statement on the pool".to_string(),
            |site| format!("acquire at {site}"),
        );
        let end = match stage {
            Stage::TimedOut => "failed",
            Stage::Waiting => "gave up",
        };
        line += &format!("{site} {end} after {}, ", span(failed.waited_for));
    }
    line += &format!(
        "{}/{} out, {} waiting",
        pool.status.held, pool.status.max, pool.status.waiting
    );
    let shares: Vec<String> = causes
        .iter()
        .map(|cause| format!("{} {}", cause.kind, cause.share))
        .collect();
    if !shares.is_empty() {
        line += &format!(" · {}", shares.join(", "));
    }
    if let Some(first) = causes.first() {
        line += &format!(": {}", first.detail);
    }
    line
}

pub(super) fn ended(pool: &PoolInfo, id: FindingId, lasted: Duration, timeouts: u64) -> Finding {
    let headline = format!(
        "pool \"{}\" is no longer exhausted, after {}; {timeouts} acquires failed",
        pool.name,
        span(lasted)
    );
    Finding {
        severity: Severity::Info,
        count: timeouts,
        ..Finding::new(id, Kind::Exhausted, pool, headline)
    }
}

pub(super) fn repeated(pool: &PoolInfo, repeats: &Repeats) -> Finding {
    let Repeats {
        episodes, timeouts, ..
    } = repeats;
    let times = if *episodes == 1 { "time" } else { "times" };
    let headline = format!(
        "pool \"{}\" was exhausted {episodes} more {times} since {}, as reported before and therefore not one by one; {timeouts} acquires failed",
        pool.name,
        time_of_day(repeats.since.wall()),
    );
    Finding {
        severity: Severity::Info,
        count: *timeouts,
        ..Finding::new(repeats.finding, Kind::Exhausted, pool, headline)
    }
}
