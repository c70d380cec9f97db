//! The one door that all findings pass.
//!
//! Responsible for saying a thing once: it dedupes by holder, limits by group and by minute, numbers
//! what it lets through, and closes a finding when its holders are back. Pure: it is given the time.
//! Not responsible for output.

mod news;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::minute::{Limited, Minute};
use crate::clock::Moment;
use crate::finding::{Finding, FindingId, Kind};
use crate::judge::{Claim, remedy};
use crate::registry::{Cut, Ended, Holder, HolderId, PoolInfo, Snapshot};
use crate::report::{GroupKey, headline};

/// What was let through.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) findings: Vec<Finding>,
    /// The holders that a finding now speaks of.
    pub(crate) claimed: Vec<(HolderId, FindingId)>,
    /// After how much time something held back may be said.
    pub(crate) next: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Told {
    finding: FindingId,
    kind: Kind,
    milestone: u32,
}

/// A finding whose holders have not all come back.
struct Open {
    sample: Holder,
    out: HashSet<HolderId>,
    count: u64,
    longest: Duration,
    /// In what one of them was when its request was cut.
    cut: Option<Cut>,
}

pub(crate) struct Door {
    next_id: u64,
    /// What was said of each holder that is still out: one open finding each.
    told: HashMap<HolderId, Told>,
    open: HashMap<FindingId, Open>,
    /// When each group last spoke. Pruned when it grows past [`Door::GROUPS`].
    spoke: HashMap<(GroupKey, Kind), Moment>,
    /// The limit by minute.
    minute: Minute,
    /// How often something happened that was not said, since its group last spoke.
    unsaid: HashMap<(GroupKey, Kind), u64>,
    /// Calls of `close()` that were spoken of, with the time of the call.
    closings: HashMap<u64, Moment>,
}

impl Door {
    /// The most reports a minute; further ones become a count.
    pub(crate) const A_MINUTE: usize = Minute::REPORTS;
    const GROUPS: usize = 1000;

    pub(crate) fn new() -> Self {
        Self {
            next_id: 1,
            told: HashMap::new(),
            open: HashMap::new(),
            spoke: HashMap::new(),
            minute: Minute::default(),
            unsaid: HashMap::new(),
            closings: HashMap::new(),
        }
    }

    /// The finding that speaks of each holder.
    pub(crate) fn verdict(&self, holder: HolderId) -> Option<(Kind, FindingId)> {
        self.told.get(&holder).map(|told| (told.kind, told.finding))
    }

    /// Lets through what is new among `claims`.
    pub(crate) fn claims(
        &mut self,
        claims: &[Claim],
        snapshot: &Snapshot,
        interval: Duration,
        now: Moment,
    ) -> Shown {
        let mut shown = Shown::default();
        self.minute.begin();
        let holders: HashMap<HolderId, &Holder> = snapshot
            .holders
            .iter()
            .map(|holder| (holder.id, holder))
            .collect();
        // Ordered by the oldest member, so that the limit by minute keeps the most telling ones.
        let mut groups: BTreeMap<usize, Vec<(Claim, &Holder)>> = BTreeMap::new();
        let mut index: HashMap<(GroupKey, Kind), usize> = HashMap::new();
        for claim in claims {
            let Some(&holder) = holders.get(&claim.holder) else {
                continue;
            };
            let next = index.len();
            let number = *index
                .entry((GroupKey::of(holder), claim.kind))
                .or_insert(next);
            groups.entry(number).or_default().push((*claim, holder));
        }
        let mut keys: Vec<_> = index.into_iter().collect();
        keys.sort_by_key(|(_, number)| *number);
        for ((key, kind), number) in keys {
            let members = groups.remove(&number).unwrap_or_default();
            self.group((key, kind), &members, snapshot, interval, now, &mut shown);
        }
        shown
    }

    fn group(
        &mut self,
        key: (GroupKey, Kind),
        members: &[(Claim, &Holder)],
        snapshot: &Snapshot,
        interval: Duration,
        now: Moment,
        shown: &mut Shown,
    ) {
        let kind = key.1;
        let mut fresh = Vec::new();
        for (claim, holder) in members {
            match self.told.get_mut(&claim.holder) {
                // An open finding is upgraded in silence.
                Some(told) if claim.milestone <= told.milestone => {
                    if rank(kind) > rank(told.kind) {
                        told.kind = kind;
                    }
                }
                _ => fresh.push((*claim, *holder)),
            }
        }
        if fresh.is_empty() {
            return;
        }
        if let Some(spoke) = self.spoke.get(&key) {
            let since = now.since(*spoke);
            if since < interval {
                wake(shown, interval - since);
                return;
            }
        }
        if !self.minute.has_room(now) {
            self.minute.leave_out();
            wake(shown, self.minute.room_in(now));
            return;
        }
        let spoken_before: HashSet<FindingId> = fresh
            .iter()
            .filter_map(|(claim, _)| Some(self.told.get(&claim.holder)?.finding))
            .collect();
        let id = match spoken_before.into_iter().min() {
            Some(id) => id,
            None => self.new_id(),
        };
        self.remember(key.clone(), interval, now);
        let oldest = members[0].1;
        let count = members.len() as u64;
        let open = self.open.entry(id).or_insert_with(|| Open {
            sample: oldest.clone(),
            out: HashSet::new(),
            count: 0,
            longest: oldest.held_for,
            cut: None,
        });
        for (claim, _) in &fresh {
            let milestone = claim.milestone;
            let told = self.told.entry(claim.holder).or_insert(Told {
                finding: id,
                kind,
                milestone,
            });
            told.milestone = milestone;
            if rank(kind) > rank(told.kind) {
                told.kind = kind;
            }
            if told.finding == id && open.out.insert(claim.holder) {
                open.count += 1;
                shown.claimed.push((claim.holder, id));
            }
        }
        let holders: Vec<Holder> = members
            .iter()
            .map(|(_, holder)| (*holder).clone())
            .collect();
        let pool = pool_of(snapshot, oldest);
        let headline = headline(kind, &pool.name, oldest, count);
        let of_group = |holder: &&Holder| GroupKey::of(holder) == key.0;
        let out = snapshot.holders.iter().filter(of_group).count() as u64;
        shown.findings.push(Finding {
            younger: out.saturating_sub(count),
            remedy: remedy(oldest, &snapshot.waiters),
            totals: snapshot.totals.clone(),
            first_seen: oldest.acquired_at,
            holders,
            count,
            ..Finding::new(id, kind, &pool, headline)
        });
    }

    /// Closes findings whose holders are back: one line for each, with its id.
    pub(crate) fn returned(&mut self, ended: Vec<Ended>, snapshot: &Snapshot) -> Vec<Finding> {
        let mut findings = Vec::new();
        for ended in ended {
            self.told.remove(&ended.holder);
            let id = FindingId(ended.finding);
            let Some(open) = self.open.get_mut(&id) else {
                continue;
            };
            open.out.remove(&ended.holder);
            open.longest = open.longest.max(ended.held_for);
            open.cut = open.cut.or(ended.cut);
            if !open.out.is_empty() {
                continue;
            }
            let Some(open) = self.open.remove(&id) else {
                continue;
            };
            let mut holder = open.sample;
            holder.held_for = open.longest;
            holder.cut = holder.cut.or(open.cut);
            let kind = Kind::ReturnedLate;
            let pool = pool_of(snapshot, &holder);
            let headline = headline(kind, &pool.name, &holder, open.count);
            findings.push(Finding {
                first_seen: holder.acquired_at,
                holders: vec![holder],
                count: open.count,
                ..Finding::new(id, kind, &pool, headline)
            });
        }
        findings
    }

    /// Lets through each `close()` that waits for holders for longer than `wait`.
    pub(crate) fn closings(&mut self, snapshot: &Snapshot, wait: Duration, now: Moment) -> Shown {
        let mut shown = Shown::default();
        let live: HashSet<u64> = snapshot.closings.iter().map(|(pool, _)| pool.id).collect();
        self.closings.retain(|pool, _| live.contains(pool));
        for (pool, closing) in &snapshot.closings {
            let since = now.since(closing.since);
            if since <= wait {
                wake(&mut shown, wait - since);
                continue;
            }
            let holders: Vec<Holder> = snapshot
                .holders
                .iter()
                .filter(|holder| holder.pool_id == pool.id)
                .cloned()
                .collect();
            let Some(oldest) = holders.first() else {
                continue;
            };
            if self.closings.insert(pool.id, closing.since) == Some(closing.since) {
                continue;
            }
            let kind = Kind::CloseBlocked;
            let id = self.new_id();
            let by = crate::site::Location::from(closing.by);
            let info = pool_of(snapshot, oldest);
            let headline = format!(
                "close() at {by} has waited {}; {}",
                crate::clock::span(since),
                headline(kind, &pool.name, oldest, holders.len() as u64)
            );
            shown.findings.push(Finding {
                remedy: remedy(oldest, &snapshot.waiters),
                first_seen: closing.since.wall(),
                count: holders.len() as u64,
                holders,
                ..Finding::new(id, kind, &info, headline)
            });
        }
        shown
    }

    /// Lets through something that happened once, by group and by minute like the others. Answers
    /// its number, and how many of its group it stands for.
    pub(crate) fn event(
        &mut self,
        holder: &Holder,
        kind: Kind,
        interval: Duration,
        now: Moment,
    ) -> Option<(FindingId, u64)> {
        let key = (GroupKey::of(holder), kind);
        let spoke = self.spoke.get(&key);
        if spoke.is_some_and(|spoke| now.since(*spoke) < interval) || !self.minute.has_room(now) {
            if self.unsaid.len() < Self::GROUPS || self.unsaid.contains_key(&key) {
                *self.unsaid.entry(key).or_default() += 1;
            }
            return None;
        }
        let count = 1 + self.unsaid.remove(&key).unwrap_or(0);
        self.remember(key, interval, now);
        Some((self.new_id(), count))
    }

    /// A number for a finding that is made elsewhere.
    pub(crate) fn new_id(&mut self) -> FindingId {
        let id = FindingId(self.next_id);
        self.next_id += 1;
        id
    }

    /// Whether the limit by minute lets something through that is made elsewhere. What is worth more
    /// than the limit (`at_any_rate`) is counted and let through.
    pub(crate) fn admits(&mut self, at_any_rate: bool, now: Moment) -> bool {
        let admitted = self.minute.has_room(now) || at_any_rate;
        if admitted {
            self.minute.count(now);
        }
        admitted
    }

    /// How many groups the limit by minute keeps back now.
    pub(crate) fn limited(&mut self, now: Moment) -> Limited {
        self.minute.limited(now)
    }

    fn remember(&mut self, key: (GroupKey, Kind), interval: Duration, now: Moment) {
        self.minute.count(now);
        if self.spoke.len() >= Self::GROUPS {
            self.spoke.retain(|_, spoke| now.since(*spoke) < interval);
        }
        self.spoke.insert(key, now);
    }
}

/// Which of two findings about one holder tells more.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::OutlivedRequest => 2,
        Kind::IdleInTransaction => 1,
        _ => 0,
    }
}

/// What is known of the pool of this holder; its name alone when the pool is gone.
fn pool_of(snapshot: &Snapshot, holder: &Holder) -> PoolInfo {
    let known = snapshot.pools.iter().find(|pool| pool.id == holder.pool_id);
    known.cloned().unwrap_or_else(|| PoolInfo {
        id: holder.pool_id,
        name: holder.pool.clone(),
        ..PoolInfo::default()
    })
}

fn wake(shown: &mut Shown, time: Duration) {
    shown.next = Some(shown.next.map_or(time, |next| next.min(time)));
}

#[cfg(test)]
mod tests;
