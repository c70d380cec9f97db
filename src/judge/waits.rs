//! Why a pool has nothing to give.
//!
//! Responsible for telling the causes of exhaustion apart, with their shares: leak, saturation and
//! outage have opposite remedies. Not responsible for when to say so: see `sink::episode`.

use std::collections::HashMap;
use std::time::Duration;

use super::words::{
    Places, cycle, nesting, on_the_way_back, saturated, site_of_waiter, sites, unexplained,
};
use crate::clock::span;
use crate::finding::{Cause, CauseKind};
use crate::registry::{Activity, Holder, HolderId, Phase, PoolInfo, Snapshot, Waiter};

/// A waiter that was woken and not polled for this long is stranded.
const STRANDED: Duration = Duration::from_millis(250);

/// For so long a connection may be in the opening or in a test.
const UNTRACKED: Duration = Duration::from_secs(1);
/// The same where the raw pool is in somebody's hands.
const RAW: Duration = Duration::from_millis(400);

/// One look tells nothing of how long something takes.
const LOOKED: Duration = Duration::from_millis(10);

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
    /// Worth knowing, and not known yet.
    Asked,
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

impl Places {
    fn of(pool: &PoolInfo, evidence: &Evidence) -> Self {
        let status = &pool.status;
        let out = status.held.saturating_add(status.returning);
        Self {
            free: status.max.saturating_sub(out),
            in_progress: status.in_progress,
            in_progress_for: evidence
                .in_progress
                .filter(|(low, time)| *low > 0 && *time >= LOOKED)
                .map(|(_, time)| time),
        }
    }
}

/// What is known of the pool, to be said where there is no cause.
pub(crate) fn without_a_cause(pool: &PoolInfo, evidence: &Evidence) -> String {
    unexplained(&Places::of(pool, evidence), &evidence.connecting)
}

/// Whether no place is to be had. One that was granted, or is being opened or tested, is nobody's to
/// take.
fn is_full(pool: &PoolInfo, waiters: &[&Waiter]) -> bool {
    let status = &pool.status;
    let out = status.held.saturating_add(status.returning);
    let granted = waiters.iter().filter(|waiter| waiter.woken_ago.is_some());
    let granted = u32::try_from(granted.count()).unwrap_or(u32::MAX);
    let taken = out
        .saturating_add(status.in_progress)
        .saturating_add(granted);
    taken >= status.max
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
    let places = Places::of(pool, evidence);
    let is_full = is_full(pool, &waiters);
    // What is young or on its way explains a wait only where it is most of the pool.
    let out = pool.status.held.saturating_add(pool.status.returning);
    let is_out = is_full && out.saturating_mul(2) > pool.status.max;
    let fails = matches!(evidence.connecting, Connecting::Fails(_));
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
    // With places left they explain it only where no other connection can be had.
    if (is_full || fails) && !(overdue.is_empty() && leaked.is_empty()) {
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
    if is_out && !young.is_empty() && evidence.stalled.is_none() {
        cause(
            CauseKind::Saturated,
            young.len(),
            saturated(pool, &young, &snapshot.totals, &waiters, &places),
        );
    }
    let status = &pool.status;
    if is_out && status.returning > 0 {
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
            let time = match places.in_progress_for {
                Some(time) => format!(" for {} at least", span(time)),
                None => String::new(),
            };
            let detail =
                format!("being opened or tested{time}; an attempt of ours to connect came through");
            cause(CauseKind::Connecting, low as usize, detail);
            0
        }
        Connecting::Works | Connecting::Asked | Connecting::NotTried => 0,
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
            // What is out is not why there are places that nobody gets.
            !is_full && matches!(cause.kind, CauseKind::Overdue | CauseKind::Nested),
            std::cmp::Reverse(cause.share),
            cause.kind,
        )
    });
    causes
}

/// Whether an attempt to connect would tell more: the pool may open connections, and does not get
/// them, or somebody has them whom we do not see. One that is idle may be dead, and is tested before it
/// is given out; when somebody was granted one and does not take it, that is known.
pub(crate) fn suspects_connecting(pool: &PoolInfo, waiters: &[Waiter]) -> bool {
    let status = &pool.status;
    let mut waiters = waiters.iter().filter(|waiter| waiter.pool_id == pool.id);
    let may_be_dead = status.idle == 0 || !waiters.any(|waiter| waiter.woken_ago.is_some());
    may_be_dead && status.held + status.returning < status.max
}

/// For which other connection of this pool the holder's user waits, without using this one.
fn waits_for_another<'a>(
    holder: &Holder,
    waiters: &[&'a Waiter],
    evidence: &Evidence,
) -> Option<&'a Waiter> {
    // In flight and left alone: rows that nobody has read for most of the wait.
    let has_rows = matches!(holder.activity, Activity::InFlight { .. });
    let is_still = |waiter: &Waiter| {
        let still = evidence.still.get(&holder.id);
        still.is_some_and(|still| *still * 2 >= waiter.waited_for)
    };
    waiters
        .iter()
        .copied()
        .filter(|waiter| is_left_alone_by(holder, waiter))
        .find(|waiter| !has_rows || is_still(waiter))
}

/// Whether who waits is who holds, and has not used what is held since the wait began. One that was
/// used or taken since is used beside the wait, by another branch of a `join!`.
pub(super) fn is_left_alone_by(holder: &Holder, waiter: &Waiter) -> bool {
    let works = matches!(holder.activity, Activity::InFlight { .. }) && !holder.parked;
    // A raw loan counts as left alone: what runs there is not seen, but its owner waits.
    !works
        && holder.owner.is_some()
        && waiter.owner == holder.owner
        && holder.activity_for >= waiter.waited_for
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::registry::PoolStatus;

    const SECOND: Duration = Duration::from_secs(1);

    fn pool(held: u32, returning: u32, max: u32, in_progress: u32) -> PoolInfo {
        PoolInfo {
            id: 1,
            name: "shop".into(),
            status: PoolStatus {
                held,
                returning,
                waiting: 2,
                max,
                size: held + returning + in_progress,
                in_progress,
                ..PoolStatus::default()
            },
            ..PoolInfo::default()
        }
    }

    fn working() -> Holder {
        Holder {
            activity: Activity::InFlight {
                since: SystemTime::UNIX_EPOCH,
            },
            uses: 1,
            ..Holder::harmless()
        }
    }

    fn returning() -> Holder {
        Holder {
            phase: Phase::Returning,
            returning_for: Some(Duration::from_micros(362)),
            ..Holder::harmless()
        }
    }

    fn seen(pool: &PoolInfo, holders: Vec<Holder>, evidence: &Evidence) -> Vec<Cause> {
        let snapshot = Snapshot {
            holders,
            waiters: Vec::new(),
            pools: vec![pool.clone()],
            totals: Vec::new(),
            closings: Vec::new(),
            dropped: 0,
        };
        causes(pool, &snapshot, evidence)
    }

    fn only(causes: &[Cause]) -> (CauseKind, &str) {
        match causes {
            [cause] => (cause.kind, &cause.detail),
            others => panic!("{others:?}"),
        }
    }

    #[test]
    fn a_full_pool_whose_holders_work_is_small() {
        let holders = vec![working(), working(), Holder::harmless()];
        let causes = seen(&pool(3, 0, 3, 0), holders, &Evidence::default());
        let (kind, detail) = only(&causes);
        assert_eq!(kind, CauseKind::Saturated);
        assert_eq!(
            detail,
            "2 young holders at work, 1 on which no statement runs, taken at src/repo.rs:88:31 (1), \
             the oldest 0 µs ago: the pool is small for this load, or its statements are slow"
        );
    }

    #[test]
    fn a_full_pool_whose_young_holders_do_nothing_is_not_called_small() {
        let idle = Holder {
            held_for: SECOND * 3,
            ..Holder::harmless()
        };
        let holders = vec![idle.clone(), idle];
        let causes = seen(&pool(2, 0, 2, 0), holders, &Evidence::default());
        assert_eq!(
            only(&causes),
            (
                CauseKind::Saturated,
                "2 young holders on which no statement runs, taken at src/repo.rs:88:31 (2), the \
                 oldest 3.0 s ago; not past the threshold yet"
            )
        );
    }

    #[test]
    fn one_that_works_beside_one_that_does_not_makes_no_pool_small() {
        let holders = vec![working(), Holder::harmless()];
        let causes = seen(&pool(2, 0, 2, 0), holders, &Evidence::default());
        let (_, detail) = only(&causes);
        assert!(!detail.contains("small"), "{detail}");
        assert!(detail.contains("no statement runs"), "{detail}");
        assert!(detail.contains("1 at work"), "{detail}");
    }

    #[test]
    fn what_is_out_of_a_pool_with_places_left_is_no_cause() {
        let cases = [
            (pool(1, 0, 5, 0), vec![working()]),
            (pool(1, 0, 5, 2), vec![working()]),
            (pool(0, 1, 5, 0), vec![returning()]),
            (
                pool(1, 0, 5, 0),
                vec![Holder {
                    overdue: true,
                    ..Holder::harmless()
                }],
            ),
        ];
        for (pool, holders) in cases {
            let causes = seen(&pool, holders, &Evidence::default());
            assert!(causes.is_empty(), "{causes:?}");
        }
    }

    #[test]
    fn what_is_out_of_a_pool_without_places_is_a_cause() {
        let kinds = |pool: &PoolInfo, holders| -> Vec<CauseKind> {
            let causes = seen(pool, holders, &Evidence::default());
            causes.iter().map(|cause| cause.kind).collect()
        };
        assert_eq!(
            kinds(&pool(0, 1, 1, 0), vec![returning()]),
            [CauseKind::Returning]
        );
        let overdue = Holder {
            overdue: true,
            ..Holder::harmless()
        };
        assert_eq!(
            kinds(&pool(1, 0, 1, 0), vec![overdue]),
            [CauseKind::Overdue]
        );
        // The other half is being opened, or out through the raw pool.
        let overdue = Holder {
            overdue: true,
            ..Holder::harmless()
        };
        assert_eq!(
            kinds(&pool(1, 0, 2, 1), vec![overdue]),
            [CauseKind::Overdue]
        );
        // The last one is being tested: it is nobody's to take.
        let busy = pool(2, 0, 3, 1);
        let causes = seen(&busy, vec![working(), working()], &Evidence::default());
        let (kind, detail) = only(&causes);
        assert_eq!(kind, CauseKind::Saturated);
        assert_eq!(
            detail,
            "2 young holders at work; no place is free, 1 in the opening or test"
        );
    }

    #[test]
    fn what_is_known_is_said_where_there_is_no_cause() {
        let mut evidence = Evidence::default();
        assert_eq!(
            without_a_cause(&pool(0, 0, 5, 0), &evidence),
            "nothing that leaktrace sees explains it: 5 places are free, none in the opening or test"
        );
        evidence.connecting = Connecting::Asked;
        assert_eq!(
            without_a_cause(&pool(0, 0, 5, 0), &evidence),
            "places are left, so it probably waited for a connection to be opened or tested; an \
             attempt of ours to connect is under way"
        );
        evidence.connecting = Connecting::Works;
        evidence.in_progress = Some((2, SECOND));
        assert_eq!(
            without_a_cause(&pool(1, 1, 5, 2), &evidence),
            "nothing that leaktrace sees explains it: 1 place is free, 2 in the opening or test for \
             1.0 s at least; an attempt of ours to connect came through"
        );
    }

    #[test]
    fn what_is_being_opened_says_since_when() {
        let evidence = Evidence {
            connecting: Connecting::Works,
            in_progress: Some((2, SECOND / 2)),
            ..Evidence::default()
        };
        let causes = seen(&pool(1, 0, 5, 2), vec![working()], &evidence);
        let (kind, detail) = only(&causes);
        assert_eq!(kind, CauseKind::Connecting);
        assert_eq!(
            detail,
            "being opened or tested for 500 ms at least; an attempt of ours to connect came through"
        );
    }
}
