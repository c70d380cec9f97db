//! What one look at a snapshot cannot tell.
//!
//! Responsible for comparing looks: for how long a holder has not moved, what of `in_progress` never
//! goes away, what last blocked the runtime. Not responsible for when to look or what to say.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::clock::Moment;
use crate::judge::{Deadlock, Evidence, Stuck};
use crate::registry::{HolderId, Phase, Snapshot};

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// What each holder and the waits of its owner looked like, and since when nothing of it has
    /// changed.
    still: HashMap<HolderId, (u64, Moment)>,
    /// The least `in_progress` of each pool since somebody waits for it, and since when that is.
    in_progress: HashMap<u64, (u32, Moment)>,
    /// What blocked the runtime of each pool when it was last blocked.
    pub(super) blocked: HashMap<u64, (Moment, String)>,
}

/// For how long nothing may have moved before a deadlock is certain: so long that it is found before
/// the first acquire gives up, and at least two looks.
pub(super) fn patience(acquire_timeout: Duration) -> Duration {
    (acquire_timeout / 3).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

impl Looks {
    /// Compares with what was seen before.
    pub(super) fn look(&mut self, snapshot: &Snapshot, now: Moment) {
        let mut seen = HashMap::with_capacity(snapshot.holders.len());
        for holder in &snapshot.holders {
            let mut hasher = DefaultHasher::new();
            (holder.phase, holder.stamp()).hash(&mut hasher);
            for waiter in &snapshot.waiters {
                if waiter.owner == holder.owner {
                    (waiter.id, waiter.woken_ago.is_some()).hash(&mut hasher);
                }
            }
            let print = hasher.finish();
            let since = match self.still.get(&holder.id) {
                Some((known, since)) if *known == print => *since,
                _ => now,
            };
            seen.insert(holder.id, (print, since));
        }
        self.still = seen;
        self.blocked
            .retain(|pool, _| snapshot.pools.iter().any(|known| known.id == *pool));
        self.in_progress.retain(|pool, _| {
            let mut waiters = snapshot.waiters.iter();
            waiters.any(|waiter| waiter.pool_id == *pool)
        });
        for pool in &snapshot.pools {
            if pool.status.waiting > 0 {
                let seen = pool.status.in_progress;
                let (low, _) = self.in_progress.entry(pool.id).or_insert((seen, now));
                *low = seen.min(*low);
            }
        }
    }

    pub(super) fn evidence(&self, pool: u64, now: Moment) -> Evidence {
        Evidence {
            still: self
                .still
                .iter()
                .map(|(holder, (_, since))| (*holder, now.since(*since)))
                .collect(),
            in_progress: self
                .in_progress
                .get(&pool)
                .map(|(low, since)| (*low, now.since(*since))),
            ..Evidence::default()
        }
    }

    /// Whether a stuck pool has been so for long enough to say so.
    pub(super) fn deadlock(
        &self,
        pool: u64,
        stuck: &Stuck,
        snapshot: &Snapshot,
        acquire_timeout: Duration,
        waited: Duration,
        now: Moment,
    ) -> Option<Deadlock> {
        let is_certain = stuck.certain.contains(&pool);
        let is_suspected = stuck.suspected.contains(&pool) && waited >= acquire_timeout / 2;
        if !is_certain && !is_suspected {
            return None;
        }
        let is_concerned = |pool: &u64| {
            stuck.certain.contains(pool) || (!is_certain && stuck.suspected.contains(pool))
        };
        let still_for = snapshot
            .holders
            .iter()
            .filter(|holder| holder.phase == Phase::Held && is_concerned(&holder.pool_id))
            .map(|holder| {
                let known = self.still.get(&holder.id);
                let still = known.map_or(Duration::ZERO, |(_, since)| now.since(*since));
                // What was not seen may have moved until the server was asked.
                match holder.lent && is_certain {
                    true => still.min(holder.activity_for),
                    false => still,
                }
            })
            .min()?;
        (still_for >= patience(acquire_timeout)).then_some(Deadlock {
            is_certain,
            still_for,
        })
    }
}
