//! Why a pool has nothing to give.
//!
//! Responsible for telling the causes of exhaustion apart, with their shares: leak, saturation and
//! outage have opposite remedies. Not responsible for when to say so: see `sink::episode`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::deadlock::{Out, deadlocked};
use crate::clock::span;
use crate::finding::{Cause, CauseKind};
use crate::registry::{Holder, Owner, Phase, PoolInfo, SiteTotal, Snapshot, Waiter};

/// A waiter that was woken and not polled for this long is stranded.
const STRANDED: Duration = Duration::from_millis(250);

/// What is known besides the snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// What the server answered to an attempt of ours to connect.
    pub(crate) connecting: Option<String>,
    /// For how long nothing was granted, used or released.
    pub(crate) still_for: Duration,
    /// For how long the runtime has not run our probe, when that is long, and what blocks it.
    pub(crate) stalled: Option<String>,
}

/// Why the pool is exhausted, the largest share first.
pub(crate) fn causes(pool: &PoolInfo, snapshot: &Snapshot, evidence: &Evidence) -> Vec<Cause> {
    let held: Vec<&Holder> = snapshot
        .holders
        .iter()
        .filter(|holder| holder.pool_id == pool.id && holder.phase != Phase::Returning)
        .collect();
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
    let dead = is_deadlocked(pool, snapshot);
    if dead {
        cause(
            CauseKind::Deadlock,
            held.len(),
            cycle(&held, snapshot, evidence.still_for),
        );
    }
    let waiting: HashMap<Owner, &Waiter> = waiters
        .iter()
        .filter_map(|waiter| Some((waiter.owner?, *waiter)))
        .collect();
    let is_nested = |holder: &Holder| {
        holder.waits_for_its_owner()
            && holder
                .owner
                .is_some_and(|owner| waiting.contains_key(&owner))
    };
    let nested: Vec<&Holder> = held
        .iter()
        .copied()
        .filter(|holder| is_nested(holder))
        .collect();
    if let (false, Some(first)) = (dead, nested.first()) {
        let waiter = first.owner.and_then(|owner| waiting.get(&owner));
        cause(
            CauseKind::Nested,
            nested.len(),
            pair(first, waiter.copied()),
        );
    }
    let rest: Vec<&Holder> = held
        .iter()
        .copied()
        .filter(|holder| !is_nested(holder))
        .collect();
    let overdue: Vec<&Holder> = rest
        .iter()
        .copied()
        .filter(|holder| holder.overdue)
        .collect();
    if !overdue.is_empty() {
        cause(CauseKind::Overdue, overdue.len(), sites(&overdue));
    }
    let young = rest.len() - overdue.len();
    if young > 0 && evidence.stalled.is_none() && !dead {
        cause(
            CauseKind::Saturated,
            young,
            saturated(pool, &snapshot.totals, &waiters),
        );
    }
    let status = &pool.status;
    if status.returning > 0 {
        cause(
            CauseKind::Returning,
            status.returning as usize,
            "on the way back to the pool".into(),
        );
    }
    if let Some(error) = &evidence.connecting {
        let missing = status
            .max
            .saturating_sub(status.size)
            .max(status.in_progress)
            .max(1);
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
    let unseen = match pool.raw_handed_out.is_empty() {
        true => status.untracked,
        // The raw pool is in use somewhere: what is out and not ours is most likely there.
        false => status.untracked.max(status.in_progress),
    };
    if unseen > 0 && evidence.connecting.is_none() {
        let sites: Vec<String> = pool
            .raw_handed_out
            .iter()
            .map(ToString::to_string)
            .collect();
        cause(
            CauseKind::Untracked,
            unseen as usize,
            match sites.as_slice() {
                [] => "out, and not through leaktrace".into(),
                sites => format!(
                    "out, and not through leaktrace; the raw pool was handed out at {}",
                    sites.join(", ")
                ),
            },
        );
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
/// them.
pub(crate) fn suspects_connecting(pool: &PoolInfo) -> bool {
    let status = &pool.status;
    status.idle == 0
        && status.held + status.returning < status.max
        && pool.raw_handed_out.is_empty()
}

/// Whether the pool's users wait for each other, as far as this snapshot shows.
pub(crate) fn is_deadlocked(pool: &PoolInfo, snapshot: &Snapshot) -> bool {
    let out: Vec<Out<u64, Owner>> = snapshot
        .holders
        .iter()
        .filter_map(|holder| {
            Some(Out {
                pool: holder.pool_id,
                user: holder.owner?,
                blocked: holder.phase == Phase::Held && holder.waits_for_its_owner(),
            })
        })
        .collect();
    let waits: Vec<(Owner, u64)> = snapshot
        .waiters
        .iter()
        .filter_map(|waiter| Some((waiter.owner?, waiter.pool_id)))
        .collect();
    let full: HashSet<u64> = snapshot
        .pools
        .iter()
        .filter(|pool| pool.status.held >= pool.status.max)
        .map(|pool| pool.id)
        .collect();
    deadlocked(&full, &out, &waits).contains(&pool.id)
}

fn cycle(held: &[&Holder], snapshot: &Snapshot, still_for: Duration) -> String {
    const SHOWN: usize = 4;
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for holder in held {
        let waiter = snapshot
            .waiters
            .iter()
            .find(|waiter| waiter.owner == holder.owner);
        *lines.entry(pair(holder, waiter)).or_default() += 1;
    }
    let mut text: Vec<String> = lines
        .iter()
        .take(SHOWN)
        .map(|(line, count)| format!("{count} × {line}"))
        .collect();
    if lines.len() > SHOWN {
        text.push(format!("{} more", lines.len() - SHOWN));
    }
    format!(
        "every connection is held by somebody who waits for another one, and nothing has moved for {}: {}",
        span(still_for),
        text.join("; ")
    )
}

/// Who holds what, taken where, last used where, and waits where.
fn pair(holder: &Holder, waiter: Option<&Waiter>) -> String {
    let who = holder
        .scope
        .as_ref()
        .map_or("a task", |scope| scope.route.as_str());
    let taken = holder.acquired_by.as_ref().map_or_else(
        || "on the pool itself".to_string(),
        |site| format!("at {site}"),
    );
    let used = match &holder.last_used_by {
        Some(site) => format!(", last used at {site}"),
        None => String::new(),
    };
    let waits = match waiter {
        Some(waiter) => format!(
            " and waits for another of pool \"{}\" at {}",
            waiter.pool,
            site_of_waiter(waiter)
        ),
        None => String::new(),
    };
    format!(
        "{who} holds one of pool \"{}\" taken {taken}{used}{waits}",
        holder.pool
    )
}

fn site_of_waiter(waiter: &Waiter) -> String {
    match &waiter.acquired_by {
        Some(site) => site.to_string(),
        None => "a statement on the pool itself".to_string(),
    }
}

/// The lines that hold most of them.
fn sites(holders: &[&Holder]) -> String {
    const SHOWN: usize = 3;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for holder in holders {
        let site = match (&holder.acquired_by, &holder.last_sql) {
            (Some(site), _) => site.to_string(),
            (None, Some(sql)) => sql.chars().take(60).collect(),
            (None, None) => "a pooled statement".to_string(),
        };
        *counts.entry(site).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown: Vec<String> = counts
        .iter()
        .take(SHOWN)
        .map(|(site, count)| format!("{site} ({count})"))
        .collect();
    let oldest = holders
        .iter()
        .map(|holder| holder.held_for)
        .max()
        .unwrap_or_default();
    format!(
        "held past the threshold, the oldest for {}: {}",
        span(oldest),
        shown.join(", ")
    )
}

fn saturated(pool: &PoolInfo, totals: &[SiteTotal], waiters: &[&Waiter]) -> String {
    let mut text = "young and working: the pool is small for this load, or its statements are slow"
        .to_string();
    let top: Vec<String> = totals
        .iter()
        .filter(|total| total.pool_id == pool.id)
        .take(3)
        .map(|total| {
            let site = match (&total.acquired_by, &total.sql) {
                (Some(site), _) => site.to_string(),
                (None, Some(sql)) => sql.chars().take(60).collect(),
                (None, None) => "a pooled statement".to_string(),
            };
            format!("{site} {} × {}", total.count, span(total.mean_hold))
        })
        .collect();
    if !top.is_empty() {
        text += &format!(
            "; most connection time in the last minute: {}",
            top.join(", ")
        );
    }
    let mut routes: HashMap<(&str, Owner), usize> = HashMap::new();
    for waiter in waiters {
        if let (Some(scope), Some(owner)) = (&waiter.scope, waiter.owner) {
            *routes.entry((scope.route.as_str(), owner)).or_default() += 1;
        }
    }
    if let Some(((route, _), count)) = routes.into_iter().max_by_key(|(_, count)| *count)
        && count >= 3
        && count * 2 > waiters.len()
    {
        text += &format!(
            "; one request of {route} is {count} of the {} that wait: it fans out",
            waiters.len()
        );
    }
    text
}
