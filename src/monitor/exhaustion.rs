//! When a pool fails somebody, or is about to.
//!
//! Responsible for noticing it (in the watchdog's pass, and in the task whose acquire failed), for
//! collecting the evidence, and for raising the detail. Not responsible for causes (`judge`) or for
//! saying each stage once (`sink::episode`).

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tracing::{Level, event};

use super::Monitor;
use crate::clock::{Moment, span};
use crate::config::Detail;
use crate::finding::{Cause, Finding, FindingId, Kind, Severity};
use crate::judge::{Evidence, causes, is_deadlocked, suspects_connecting};
use crate::registry::{Phase, PoolInfo, PoolRecord, Snapshot, Waiter};
use crate::sink::{Episodes, Stage};

/// What is remembered from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Exhaustion {
    episodes: Episodes,
    /// The holders and their uses, and since when nothing of it has changed.
    still: Option<(u64, Moment)>,
}

/// A finding to be made, with all that it needs.
struct Alarm {
    id: FindingId,
    stage: Stage,
    pool: PoolInfo,
    snapshot: Snapshot,
    evidence: Evidence,
    /// Whose acquire failed, or who gave up.
    failed: Option<Waiter>,
}

impl Monitor {
    /// Looks at who waits. Answers after how much time to look again.
    pub(super) fn scan_waits(&self, snapshot: &Snapshot, now: Moment) -> Option<Duration> {
        let gave_up = self.0.registry.take_gave_up();
        let wait = self.0.config.get_wait();
        let mut next: Option<Duration> = None;
        let mut alarms = Vec::new();
        let mut state = self.0.exhaustion.lock();
        let still_for = state.still_for(snapshot, now);
        for pool in &snapshot.pools {
            let of_pool = |waiter: &&Waiter| waiter.pool_id == pool.id;
            let oldest = snapshot.waiters.iter().find(of_pool);
            // A client's timeout of the same length ends a little before ours.
            let left = gave_up
                .iter()
                .filter(of_pool)
                .find(|waiter| waiter.waited_for * 10 >= wait * 9);
            let waited = oldest.map_or(Duration::ZERO, |waiter| waiter.waited_for);
            let Some(record) = self.record(pool.id) else {
                continue;
            };
            // A deadlock is certain only when nothing has moved for a while; that must be found
            // before the first acquire gives up.
            let patience = Duration::from_secs(1).min(record.acquire_timeout() / 2);
            let dead = oldest.is_some() && is_deadlocked(pool, snapshot);
            let certain = dead && still_for >= patience;
            if oldest.is_some() {
                let due = wait.saturating_sub(waited).min(Duration::from_millis(100));
                next = Some(next.map_or(due, |next| next.min(due)));
            }
            if !certain && (dead || (waited <= wait && left.is_none())) {
                continue;
            }
            let door = &self.0.door;
            let id = state
                .episodes
                .sign(pool.id, Stage::Waiting, now, || door.lock().new_id());
            if let Some(id) = id {
                alarms.push((record, id, pool.clone(), left.cloned()));
            }
        }
        let over = state.episodes.over(now);
        if !state.episodes.is_empty() {
            next = Some(next.map_or(Duration::from_millis(250), |next| next));
        }
        drop(state);
        for (record, id, pool, failed) in alarms {
            let evidence = self.evidence(&record, still_for, now);
            self.alarm(
                &record,
                Alarm {
                    id,
                    stage: Stage::Waiting,
                    pool,
                    snapshot: self.snapshot(now),
                    evidence,
                    failed,
                },
            );
        }
        for over in over {
            let pool = snapshot.pools.iter().find(|pool| pool.id == over.pool);
            if let Some(pool) = pool {
                self.0
                    .reporter
                    .say(ended(pool, over.finding, over.lasted, over.timeouts));
            }
        }
        next
    }

    /// An acquire failed with this error. Called in the task that failed, before it hears of it: the
    /// snapshot is of this moment, naming and printing happen elsewhere.
    pub(crate) fn acquire_failed(
        &self,
        record: &Arc<PoolRecord>,
        failed: Waiter,
        timed_out: bool,
        error: &dyn std::fmt::Display,
    ) {
        let now = Moment::now();
        let id = {
            let mut state = self.0.exhaustion.lock();
            let door = &self.0.door;
            let id = state
                .episodes
                .sign(record.id, Stage::TimedOut, now, || door.lock().new_id());
            match id {
                Some(id) => id,
                None => return,
            }
        };
        let snapshot = self.snapshot(now);
        let Some(pool) = snapshot
            .pools
            .iter()
            .find(|pool| pool.id == record.id)
            .cloned()
        else {
            return;
        };
        let still_for = self.0.exhaustion.lock().still_for(&snapshot, now);
        let mut evidence = self.evidence(record, still_for, now);
        if !timed_out {
            evidence.connecting =
                Some(crate::site::text::escape_text(&error.to_string(), 300).into_owned());
        }
        let causes = causes(&pool, &snapshot, &evidence);
        let line = headline(&pool, Stage::TimedOut, Some(&failed), &causes);
        // Here, in the caller's span: its trace leads to the finding.
        event!(target: "leaktrace", Level::ERROR, kind = Kind::Exhausted.as_str(), phase = "timed_out", %id, pool = %pool.name, "{line}");
        self.alarm(
            record,
            Alarm {
                id,
                stage: Stage::TimedOut,
                pool,
                snapshot,
                evidence,
                failed: Some(failed),
            },
        );
        // So that the end of the episode is noticed, also when nothing is out.
        self.0.watchdog.wake_now();
    }

    pub(super) fn is_exhausted(&self) -> bool {
        !self.0.exhaustion.lock().episodes.is_empty()
    }

    fn evidence(&self, record: &PoolRecord, still_for: Duration, now: Moment) -> Evidence {
        Evidence {
            connecting: None,
            still_for,
            stalled: self.probe(record, now),
        }
    }

    /// Makes the finding, after an attempt to connect where that may tell more.
    fn alarm(&self, record: &Arc<PoolRecord>, mut alarm: Alarm) {
        self.escalate();
        let suspected = suspects_connecting(&alarm.pool) && alarm.evidence.connecting.is_none();
        match record
            .runtime()
            .filter(|_| suspected && alarm.evidence.stalled.is_none())
        {
            Some(runtime) => {
                let monitor = self.clone();
                let record = Arc::clone(record);
                let interval = self.0.config.get_report_interval();
                runtime.spawn(async move {
                    alarm.evidence.connecting = record.attempt(interval).await;
                    monitor.0.reporter.say(finding(alarm));
                });
            }
            None => self.0.reporter.say(finding(alarm)),
        }
    }

    /// Raises the detail for a while: the incident instruments itself.
    fn escalate(&self) {
        let Some(time) = self.0.config.get_escalate() else {
            return;
        };
        let now = Moment::now();
        if self.0.settings.lock().detail == Detail::Location {
            self.change(|settings| settings.escalated = Some(now.after(time)));
        }
    }

    /// Lowers the detail again when its time is over.
    pub(super) fn deescalate(&self, now: Moment) {
        let over = self
            .0
            .settings
            .lock()
            .escalated
            .is_some_and(|until| until <= now);
        if over {
            self.change(|settings| settings.escalated = None);
        }
    }

    pub(super) fn record(&self, id: u64) -> Option<Arc<PoolRecord>> {
        self.0
            .registry
            .pools()
            .into_iter()
            .find(|pool| pool.id == id)
    }
}

impl Exhaustion {
    /// For how long no holder came, went or was used.
    fn still_for(&mut self, snapshot: &Snapshot, now: Moment) -> Duration {
        let mut hasher = DefaultHasher::new();
        for holder in &snapshot.holders {
            (
                holder.id,
                holder.uses,
                holder.phase == Phase::Held,
                holder.parked,
            )
                .hash(&mut hasher);
            holder.activity.to_string().hash(&mut hasher);
        }
        let print = hasher.finish();
        match self.still {
            Some((known, since)) if known == print => now.since(since),
            _ => {
                self.still = Some((print, now));
                Duration::ZERO
            }
        }
    }
}

fn finding(alarm: Alarm) -> Finding {
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

fn headline(pool: &PoolInfo, stage: Stage, failed: Option<&Waiter>, causes: &[Cause]) -> String {
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

fn ended(pool: &PoolInfo, id: FindingId, lasted: Duration, timeouts: u64) -> Finding {
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
