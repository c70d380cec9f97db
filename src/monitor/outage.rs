//! Whether connections can be opened at all.
//!
//! Responsible for having that tried while a pool fails somebody though it has places left, for what an
//! attempt still tells of whoever waits now, and for noticing that an outage is over. Not responsible
//! for the attempt itself (`registry::attempts`) or for what is said (`alarm`).

use std::sync::Arc;
use std::time::Duration;

use super::Monitor;
use super::exhaustion::Exhaustion;
use crate::clock::Moment;
use crate::judge::{Connecting, suspects_connecting};
use crate::registry::{Attempted, PoolInfo, PoolRecord, Snapshot};
use crate::sink::Giving;

/// The least time between the begins of two attempts at one pool.
pub(super) const PACE: Duration = Duration::from_secs(2);
/// That one came through says nothing of later than this.
const JUST_NOW: Duration = Duration::from_millis(250);
/// Nor that one failed, though the server's words last a little longer.
const NOT_LONG_AGO: Duration = Duration::from_secs(4);

/// An attempt under way, for the episode of its pool. Its end is noted on any path, also when the
/// runtime drops it.
pub(super) struct Asking {
    monitor: Monitor,
    pool: u64,
}

impl Asking {
    pub(super) fn begin(monitor: &Monitor, pool: u64) -> Self {
        if let Some(outage) = monitor.0.exhaustion.lock().episodes.outage(pool) {
            outage.asks();
        }
        Self {
            monitor: monitor.clone(),
            pool,
        }
    }

    /// Tries to connect, unless an attempt since then suffices for who waits `since` then.
    pub(super) async fn attempt(
        &self,
        record: &PoolRecord,
        since: Moment,
        counts: bool,
    ) -> Connecting {
        let suffices = |attempted: &Attempted| tells(attempted, since, Moment::now());
        let attempted = record.attempt(PACE, counts, suffices).await;
        let mut state = self.monitor.0.exhaustion.lock();
        match state.episodes.outage(self.pool) {
            Some(outage) if attempted.result.is_err() => {
                outage.cannot_connect(attempted.began, true);
            }
            Some(_) => state.episodes.connects(self.pool, Moment::now()),
            None => {}
        }
        drop(state);
        attempted.result.into()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(outage) = self.monitor.0.exhaustion.lock().episodes.outage(self.pool) {
            outage.asked();
        }
    }
}

/// Whether an attempt says something of who waits `since` then. One that began before that may have met
/// a server that is gone now, or that was not there yet.
fn tells(attempted: &Attempted, since: Moment, now: Moment) -> bool {
    let is_fresh = match attempted.result {
        Ok(()) => now.since(attempted.ended) < JUST_NOW,
        Err(_) => now.since(attempted.began) < NOT_LONG_AGO,
    };
    attempted.began >= since && is_fresh
}

/// When the youngest holder of the pool got its connection.
fn granted(snapshot: &Snapshot, pool: u64, now: Moment) -> Option<Moment> {
    let holders = snapshot.holders.iter();
    let ages = holders
        .filter(|holder| holder.pool_id == pool)
        .map(|holder| holder.held_for + holder.returning_for.unwrap_or_default());
    ages.min().map(|age| now.before(age))
}

impl Monitor {
    /// What is known at this moment of whether the pool can open connections, for who waits `since` then.
    pub(super) fn connecting(
        &self,
        record: &PoolRecord,
        pool: &PoolInfo,
        snapshot: &Snapshot,
        since: Moment,
        now: Moment,
    ) -> Connecting {
        if !suspects_connecting(pool, &snapshot.waiters) {
            return Connecting::NotTried;
        }
        let is_known = |attempted: &Attempted| {
            // The failure of a moment ago stands until somebody is granted a connection.
            let stands = || {
                attempted.result.is_err()
                    && now.since(attempted.began) < PACE
                    && granted(snapshot, pool.id, now).is_none_or(|at| at < attempted.began)
            };
            tells(attempted, since, now) || stands()
        };
        match record.last_attempt().filter(is_known) {
            Some(attempted) => attempted.result.into(),
            None if record.runtime().is_some() => Connecting::Asked,
            None => Connecting::NotTried,
        }
    }

    /// What an attempt of ours has told while the oldest waits, for who asks and does not wait for
    /// another one.
    pub(super) fn connected(
        &self,
        record: &PoolRecord,
        pool: &PoolInfo,
        snapshot: &Snapshot,
        since: Moment,
    ) -> Connecting {
        match record.last_attempt() {
            Some(attempted)
                if attempted.began >= since && suspects_connecting(pool, &snapshot.waiters) =>
            {
                attempted.result.into()
            }
            _ => Connecting::NotTried,
        }
    }

    /// Has an attempt made while acquires of this pool fail, unless one was made a moment ago.
    pub(super) fn keep_trying(&self, record: &Arc<PoolRecord>, counts: bool, now: Moment) {
        let last = record.last_attempt();
        let is_soon = last.is_some_and(|last| now.since(last.began) < PACE);
        let is_asking = || {
            let mut state = self.0.exhaustion.lock();
            let outage = state.episodes.outage(record.id);
            outage.is_some_and(|outage| outage.is_asking())
        };
        if is_soon || is_asking() {
            return;
        }
        let waiters = self.0.registry.waiters(now);
        let Some(runtime) = record.runtime() else {
            return;
        };
        if !suspects_connecting(&record.info(now), &waiters) {
            return;
        }
        let asking = Asking::begin(self, record.id);
        let record = Arc::clone(record);
        runtime.spawn(async move {
            asking.attempt(&record, now, counts).await;
        });
    }

    /// Looks whether the outages there are, are over. To be called before what is over is taken out.
    pub(super) fn scan_outages(
        &self,
        state: &mut Exhaustion,
        snapshot: &Snapshot,
        now: Moment,
    ) -> Vec<(Arc<PoolRecord>, bool)> {
        for pool in &snapshot.pools {
            let giving = Giving {
                is_wanted: pool.status.waiting > 0,
                idle: pool.status.idle,
                granted: granted(snapshot, pool.id, now),
            };
            state.episodes.look(pool.id, giving, now);
        }
        let doubts = state.episodes.in_doubt(now).into_iter();
        doubts
            .filter_map(|pool| Some((self.record(pool)?, state.episodes.is_wanted(pool, now))))
            .collect()
    }
}
