//! One group per bug.
//!
//! Responsible for the key by which holders are put together: pool, kind, acquired-by (else SQL),
//! last-used-by, label. Raw stacks would split one bug; the acquire line alone would merge all the
//! bugs behind one extractor.

use std::collections::HashMap;

use crate::finding::{FindingId, Kind};
use crate::registry::{Holder, HolderId, HolderKind, Phase, Waiter};
use crate::site::Location;

/// What makes two holders the same bug.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupKey {
    pool: u64,
    kind: HolderKind,
    acquired_by: Option<Location>,
    sql: Option<String>,
    last_used_by: Option<Location>,
    label: Option<String>,
    phase: Phase,
}

impl GroupKey {
    pub(crate) fn of(holder: &Holder) -> Self {
        Self {
            pool: holder.pool_id,
            kind: holder.kind,
            acquired_by: holder.acquired_by.clone(),
            sql: holder
                .last_sql
                .clone()
                .filter(|_| holder.acquired_by.is_none()),
            last_used_by: holder.last_used_by.clone(),
            label: holder.label.clone(),
            phase: holder.phase,
        }
    }
}

/// Holders of one bug, as shown in a report.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Group {
    /// The finding that speaks of it, when one does.
    pub finding: Option<FindingId>,
    /// What the group suffers from, when anything.
    pub kind: Option<Kind>,
    /// How many holders suffer from `kind`; all of them, when the group suffers from nothing.
    pub count: usize,
    /// How many more are out from the same line, and suffer from nothing.
    pub younger: usize,
    /// The routes they serve, the three most frequent first, with counts.
    pub routes: Vec<(String, usize)>,
    /// What to do, when the evidence says it.
    pub remedy: Option<String>,
    /// The holders, oldest first; at most [`Group::SHOWN`].
    pub holders: Vec<Holder>,
}

impl Group {
    /// The most holders that are kept in one group; the counts have them all.
    pub const SHOWN: usize = 10;
    /// The most groups in a report.
    pub(crate) const MOST: usize = 1000;

    pub(crate) fn of(
        holders: Vec<Holder>,
        finding: Option<FindingId>,
        kind: Option<Kind>,
        waiters: &[Waiter],
    ) -> Self {
        let mut routes: HashMap<&str, usize> = HashMap::new();
        for scope in holders.iter().filter_map(|holder| holder.scope.as_ref()) {
            *routes.entry(&scope.route).or_default() += 1;
        }
        let mut routes: Vec<(String, usize)> = routes
            .into_iter()
            .map(|(route, count)| (route.to_string(), count))
            .collect();
        routes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        routes.truncate(3);
        let remedy = match (kind, holders.first()) {
            (Some(_), Some(oldest)) => crate::judge::remedy(oldest, waiters),
            // It need not be old: whoever waits, waits for its like.
            (None, Some(oldest)) if oldest.waits_for_its_owner() => {
                crate::judge::waits_itself(oldest, waiters)
            }
            _ => None,
        };
        let count = holders.len();
        let mut holders = holders;
        holders.truncate(Self::SHOWN);
        Self {
            finding,
            kind,
            count,
            younger: 0,
            routes,
            remedy,
            holders,
        }
    }
}

/// Groups holders, the group of the oldest first.
pub(crate) fn group(
    holders: Vec<Holder>,
    verdicts: &HashMap<HolderId, (Kind, Option<FindingId>)>,
    waiters: &[Waiter],
) -> Vec<Group> {
    let mut order: Vec<GroupKey> = Vec::new();
    let mut members: HashMap<GroupKey, Vec<Holder>> = HashMap::new();
    for holder in holders {
        let key = GroupKey::of(&holder);
        let group = members.entry(key.clone()).or_default();
        if group.is_empty() {
            order.push(key);
        }
        group.push(holder);
    }
    order
        .iter()
        .filter_map(|key| members.remove(key))
        .map(|holders| {
            let mut suffering = holders.iter().filter_map(|holder| verdicts.get(&holder.id));
            let verdict = suffering.next();
            let count = 1 + suffering.count();
            let finding = verdict.and_then(|(_, finding)| *finding);
            let mut group = Group::of(holders, finding, verdict.map(|(kind, _)| *kind), waiters);
            if group.kind.is_some() {
                group.younger = group.count - count;
                group.count = count;
            }
            group
        })
        .collect()
}
