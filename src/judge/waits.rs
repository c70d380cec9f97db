//! Why a pool has nothing to give.
//!
//! Responsible for telling the causes of exhaustion apart, with their shares: leak, saturation and
//! outage have opposite remedies. Not responsible for when to say so: see `sink::episode`.

use std::collections::HashMap;
use std::time::Duration;

use super::words::{cycle, nesting, on_the_way_back, saturated, site_of_waiter, sites};
use crate::clock::span;
use crate::finding::{Cause, CauseKind};
use crate::registry::{Activity, Holder, HolderId, Phase, PoolInfo, Snapshot, Waiter};

/// A waiter that was woken and not polled for this long is stranded.
const STRANDED: Duration = Duration::from_millis(250);

/// For so long a connection may be in the opening or in a test.
const UNTRACKED: Duration = Duration::from_secs(1);
/// The same where the raw pool is in somebody's hands.
const RAW: Duration = Duration::from_millis(400);

/// What is known besides the snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) connecting: Connecting,
    /// For how long each holder has not moved, as far as was looked.
    pub(crate) still: HashMap<HolderId, Duration>,
    pub(crate) deadlock: Option<Deadlock>,
    /// For how long the runtime has not run our probe, when that is long, and what blocks it.
    pub(crate) stalled: Option<String>,
    /// The least `in_progress` since somebody waits, and for how long that was looked at.
    pub(crate) in_progress: Option<(u32, Duration)>,
}

/// What came of an attempt of ours to connect beside the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Connecting {
    #[default]
    NotTried,
    Works,
    /// The server's own words, or what keeps us from it.
    Fails(String),
}

impl From<Result<(), String>> for Connecting {
    fn from(attempt: Result<(), String>) -> Self {
        match attempt {
            Ok(()) => Self::Works,
            Err(error) => Self::Fails(error),
        }
    }
}

/// That the pool's users wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlock {
    /// False when connections were lent raw, so that something may run there.
    pub(crate) is_certain: bool,
    /// For how long nothing was granted, used or released.
    pub(crate) still_for: Duration,
}

/// Why the pool is exhausted, the largest share first.
pub(crate) fn causes(pool: &PoolInfo, snapshot: &Snapshot, evidence: &Evidence) -> Vec<Cause> {
    let in_phase = |phase: Phase| -> Vec<&Holder> {
        snapshot
            .holders
            .iter()
            .filter(|holder| holder.pool_id == pool.id && holder.phase == phase)
            .collect()
    };
    let held = in_phase(Phase::Held);
    let waiters: Vec<&Waiter> = snapshot
        .waiters
        .iter()
        .filter(|waiter| waiter.pool_id == pool.id)
        .collect();
    let mut causes = Vec::new();
    let mut cause = |kind, share: usize, detail: String| {
        causes.push(Cause {
            kind,
            share: u32::try_from(share).unwrap_or(u32::MAX),
            detail,
        });
    };

    if let Some(stalled) = &evidence.stalled {
        cause(
            CauseKind::Stalled,
            pool.status.max as usize,
            stalled.clone(),
        );
    }
    let rest = match evidence.deadlock {
        Some(deadlock) => {
            let detail = cycle(&held, snapshot, deadlock);
            cause(CauseKind::Deadlock, held.len(), detail);
            Vec::new()
        }
        None => {
            let (nested, rest): (Vec<&Holder>, Vec<&Holder>) = held
                .iter()
                .copied()
                .partition(|holder| waits_for_another(holder, &waiters, evidence).is_some());
            if let Some(first) = nested.first() {
                let waiter = waits_for_another(first, &waiters, evidence);
                cause(
                    CauseKind::Nested,
                    nested.len(),
                    nesting(&nested, first, waiter),
                );
            }
            rest
        }
    };
    let (overdue, young): (Vec<&Holder>, Vec<&Holder>) =
        rest.into_iter().partition(|holder| holder.overdue);
    let leaked = in_phase(Phase::LeakedOnPurpose);
    if !overdue.is_empty() || !leaked.is_empty() {
        let detail = [
            (!overdue.is_empty()).then(|| format!("held past the threshold, {}", sites(&overdue))),
            (!leaked.is_empty()).then(|| format!("given away with leak(), {}", sites(&leaked))),
        ];
        let detail: Vec<String> = detail.into_iter().flatten().collect();
        cause(
            CauseKind::Overdue,
            overdue.len() + leaked.len(),
            detail.join("; "),
        );
    }
    if !young.is_empty() && evidence.stalled.is_none() {
        cause(
            CauseKind::Saturated,
            young.len(),
            saturated(pool, &young, &snapshot.totals, &waiters),
        );
    }
    let status = &pool.status;
    if status.returning > 0 {
        cause(
            CauseKind::Returning,
            status.returning as usize,
            on_the_way_back(&in_phase(Phase::Returning)),
        );
    }
    if let Connecting::Fails(error) = &evidence.connecting {
        // sqlx counts a connection as open from its first attempt on.
        let missing = status.max.saturating_sub(status.size);
        let missing = missing.max(status.in_progress).max(1);
        cause(CauseKind::Connecting, missing as usize, error.clone());
    }
    let stranded: Vec<&&Waiter> = waiters
        .iter()
        .filter(|waiter| status.idle > 0 && waiter.woken_ago.is_some_and(|ago| ago > STRANDED))
        .collect();
    if let Some(first) = stranded.first() {
        cause(
            CauseKind::Stranded,
            stranded.len(),
            format!(
                "the acquire at {} was granted a connection {} ago and is not polled: its future is kept, and nobody awaits it",
                site_of_waiter(first),
                span(first.woken_ago.unwrap_or_default())
            ),
        );
    }
    // What neither waits for the server nor is ours. A connection is tested and opened in passing, so
    // only what was there at every look for a while counts.
    let (low, looked_for) = evidence.in_progress.unwrap_or_default();
    let may_be_raw = !pool.raw_handed_out.is_empty();
    let could_be = match &evidence.connecting {
        Connecting::Fails(_) => 0,
        _ if may_be_raw && looked_for >= RAW => low,
        // The server is known to answer, so opening one does not take that long.
        Connecting::Works if looked_for >= UNTRACKED => low,
        Connecting::Works if !may_be_raw && low > 0 => {
            let detail = "being opened or tested; an attempt of ours to connect came through";
            cause(CauseKind::Connecting, low as usize, detail.to_string());
            0
        }
        Connecting::Works | Connecting::NotTried => 0,
    };
    let unseen = status.untracked.max(could_be);
    if unseen > 0 {
        let sites: Vec<String> = pool
            .raw_handed_out
            .iter()
            .map(ToString::to_string)
            .collect();
        let by = match sites.as_slice() {
            [] => String::new(),
            sites => format!("; the raw pool was handed out at {}", sites.join(", ")),
        };
        let detail = format!("out, and not through leaktrace{by}");
        cause(CauseKind::Untracked, unseen as usize, detail);
    }
    causes.sort_by_key(|cause| {
        (
            cause.kind != CauseKind::Stalled,
            std::cmp::Reverse(cause.share),
            cause.kind,
        )
    });
    causes
}

/// Whether an attempt to connect would tell more: the pool may open connections, and does not get
/// them, or somebody has them whom we do not see.
pub(crate) fn suspects_connecting(pool: &PoolInfo) -> bool {
    let status = &pool.status;
    status.idle == 0 && status.held + status.returning < status.max
}

/// For which other connection of this pool the holder's user waits, without using this one.
fn waits_for_another<'a>(
    holder: &Holder,
    waiters: &[&'a Waiter],
    evidence: &Evidence,
) -> Option<&'a Waiter> {
    let is_left_alone_since = |waiter: &Waiter| match holder.activity {
        // One that was used or taken since is used beside the wait, by another branch of a `join!`.
        Activity::Idle { .. } => holder.activity_for >= waiter.waited_for,
        // Its rows have not been read for most of the wait.
        Activity::InFlight { .. } if holder.parked => {
            let still = evidence.still.get(&holder.id);
            still.is_some_and(|still| *still * 2 >= waiter.waited_for)
                && holder.activity_for >= waiter.waited_for
        }
        // Suspected: what runs on a raw loan is not seen, but its owner waits.
        Activity::Unknown { .. } => holder.activity_for >= waiter.waited_for,
        Activity::InFlight { .. } => false,
    };
    waiters
        .iter()
        .copied()
        .filter(|waiter| holder.owner.is_some() && waiter.owner == holder.owner)
        .find(|waiter| is_left_alone_since(waiter))
}
