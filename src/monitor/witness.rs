//! When a server is asked about who holds its connections.
//!
//! Responsible for asking only when something is about to be said, at most once per pool and
//! interval, all holders of a pool in one question, and for how long a finding waits for the answer.
//! Not responsible for the question itself (`pool::witness`) or for joining the answer to holders
//! (`registry::testimony`).

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Monitor;
use crate::clock::Moment;
use crate::config::Detail;
use crate::finding::Kind;
use crate::judge::{Claim, due_in};
use crate::registry::{
    Activity, Answer, Holder, Phase, PoolRecord, Question, Snapshot, share_a_backend,
};

/// What is remembered of the questions, for each pool.
#[derive(Debug, Default)]
pub(super) struct Questions(HashMap<u64, Asked>);

#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    at: Option<Moment>,
    is_pending: bool,
    route: Route,
}

/// What stands between us and the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Route {
    #[default]
    NotLooked,
    /// Each client has a backend of its own.
    Direct,
    /// Backends are shared: what one does is nobody's. For good.
    Pooler,
}

/// A question is under way; its end is noted on any path, also when the runtime drops it.
struct Pending {
    monitor: Monitor,
    pool: u64,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(asked) = self.monitor.0.questions.lock().0.get_mut(&self.pool) {
            asked.is_pending = false;
        }
        self.monitor.0.watchdog.wake_now();
    }
}

/// The least time between two questions about one pool, when something new is about to be said.
pub(super) const NEWS: Duration = Duration::from_secs(2);
/// The same, while somebody waits for the pool.
pub(super) const EXHAUSTED: Duration = Duration::from_secs(5);
/// A question that takes longer than this has failed.
const LIMIT: Duration = Duration::from_millis(2100);
/// So much later than its limit a finding may be, when the answer is on its way.
const LATE: Duration = Duration::from_millis(250);
/// As long before its limit a holder is asked about, so that the answer is there in time. Less than
/// [`NEWS`]: one question is enough.
const AHEAD: Duration = Duration::from_millis(1500);

impl Monitor {
    /// Has the servers asked about holders of whom something is, or is about to be, said. Answers
    /// after how much time the next one is due to be asked about.
    pub(super) fn scan_witness(
        &self,
        snapshot: &Snapshot,
        claims: &[Claim],
        now: Moment,
    ) -> Option<Duration> {
        if !self.0.config.get_witness() || self.detail() != Detail::Backtrace {
            return None;
        }
        let interval = self.0.config.get_report_interval();
        let claimed: HashMap<_, _> = claims.iter().map(|claim| (claim.holder, claim)).collect();
        let mut pools = HashSet::new();
        let mut next: Option<Duration> = None;
        let mut door = self.0.door.lock();
        if !door.has_room(now) {
            // Nothing would be said.
            return None;
        }
        for holder in snapshot.holders.iter().filter(|holder| is_known(holder)) {
            let due = due_in(holder);
            let ahead = AHEAD.min(holder.threshold / 3);
            if due > ahead {
                let time = due - ahead;
                next = Some(next.map_or(time, |next| next.min(time)));
            }
            let claim = claimed.get(&holder.id);
            let is_news = claim.is_some_and(|claim| door.is_news(claim));
            if (is_news || due <= ahead) && !door.has_spoken_of(holder, interval, now) {
                pools.insert(holder.pool_id);
            }
        }
        drop(door);
        for pool in pools {
            if let Some(record) = self.record(pool) {
                self.have_asked(&record, snapshot, NEWS, now);
            }
        }
        next
    }

    /// Whether a claim waits for an answer that is on its way, because it would tell more.
    pub(super) fn waits_for_witness(
        &self,
        claim: &Claim,
        snapshot: &Snapshot,
        now: Moment,
    ) -> bool {
        if claim.kind != Kind::HeldTooLong {
            return false;
        }
        let is_it = |holder: &&Holder| holder.id == claim.holder;
        snapshot.holders.iter().find(is_it).is_some_and(|holder| {
            let late = holder.running_for.saturating_sub(holder.threshold);
            late < LATE && is_worth_asking(holder) && self.is_asking(holder.pool_id, now)
        })
    }

    /// Has the server asked about this pool's holders, unless it was not long ago.
    pub(super) fn have_asked(
        &self,
        record: &Arc<PoolRecord>,
        snapshot: &Snapshot,
        interval: Duration,
        now: Moment,
    ) {
        let (Some(runtime), Some(question)) = (
            record.runtime(),
            self.question(record, snapshot, interval, now),
        ) else {
            return;
        };
        runtime.spawn(question);
    }

    /// The question about this pool's holders: asks, and keeps what is answered. `None` when there is
    /// nobody to ask about, and when it was asked not long ago.
    pub(super) fn question(
        &self,
        record: &Arc<PoolRecord>,
        snapshot: &Snapshot,
        interval: Duration,
        now: Moment,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        if !self.0.config.get_witness() || self.detail() == Detail::Off {
            return None;
        }
        let of_pool = |holder: &&Holder| holder.pool_id == record.id;
        let holders: Vec<&Holder> = snapshot.holders.iter().filter(of_pool).collect();
        if !holders.iter().any(|holder| is_known(holder)) {
            return None;
        }
        let is_first = {
            let mut questions = self.0.questions.lock();
            let live = |pool: &u64| snapshot.pools.iter().any(|known| known.id == *pool);
            questions.0.retain(|pool, _| live(pool));
            let asked = questions.0.entry(record.id).or_default();
            if share_a_backend(&holders) {
                asked.route = Route::Pooler;
            }
            let is_soon = asked.at.is_some_and(|at| now.since(at) < interval);
            if asked.route == Route::Pooler || asked.is_pending || is_soon {
                return None;
            }
            asked.at = Some(now);
            asked.is_pending = true;
            asked.route == Route::NotLooked
        };
        let pending = Pending {
            monitor: self.clone(),
            pool: record.id,
        };
        // Those on their way back too: one of them may block another.
        let backends = holders.iter().filter_map(|holder| holder.backend).collect();
        let holders: Vec<Holder> = holders.into_iter().cloned().collect();
        let answer = record.testify(Question { backends, is_first });
        Some(async move {
            let answer = answer.await;
            let monitor = &pending.monitor;
            let route = match answer {
                Answer::Silence => return,
                Answer::Pooler => Route::Pooler,
                Answer::Said(said) => {
                    let registry = &monitor.0.registry;
                    registry.keep_testimonies(said, &holders, Moment::now());
                    Route::Direct
                }
            };
            if let Some(asked) = monitor.0.questions.lock().0.get_mut(&pending.pool) {
                asked.route = route;
            }
        })
    }

    /// Whether an answer about this pool is on its way.
    pub(super) fn is_asking(&self, pool: u64, now: Moment) -> bool {
        let questions = self.0.questions.lock();
        questions.0.get(&pool).is_some_and(|asked| {
            asked.is_pending && asked.at.is_some_and(|at| now.since(at) < LIMIT)
        })
    }
}

/// Whether a server can be asked about it, and something may be said of it.
fn is_known(holder: &Holder) -> bool {
    holder.phase == Phase::Held && !holder.unreported && holder.backend.is_some()
}

/// Whether an answer would tell more than was seen.
pub(super) fn is_worth_asking(holder: &Holder) -> bool {
    is_known(holder)
        && match holder.activity {
            Activity::Idle { .. } => false,
            Activity::InFlight { .. } => !holder.parked,
            Activity::Unknown { .. } => true,
        }
        && !holder.server.as_ref().is_some_and(|said| said.is_fresh())
}
