//! When a pool fails somebody, or is about to.
//!
//! Responsible for noticing it (in the watchdog's pass, and in the task whose acquire failed), for
//! collecting the evidence, and for raising the detail. Not responsible for causes (`judge`) or for
//! saying each stage once (`sink::episode`).

use std::sync::Arc;
use std::time::Duration;

use tracing::{Level, event};

use super::Monitor;
use super::alarm::{Alarm, ended, headline, repeated};
use super::looks::{Looks, patience};
use super::stall::{Heed, Runtime};
use super::witness::{EXHAUSTED, is_worth_asking};
use crate::clock::Moment;
use crate::config::Detail;
use crate::finding::{Cause, Kind};
use crate::judge::{Connecting, causes, stuck, without_a_cause};
use crate::registry::{Holder, PoolRecord, Pulse, Snapshot, Waiter};
use crate::sink::{Episodes, Stage};
use crate::site::text::escape_text;

/// As long a wait without any cause is looked at again before it is said.
const UNEXPLAINED: Duration = Duration::from_millis(250);

/// As long an outage is not over because nobody asks for a connection: the interval after which what
/// was said may be said again, within bounds.
fn unasked(interval: Duration) -> Duration {
    interval.clamp(Duration::from_secs(10), Duration::from_secs(60))
}

/// What is remembered from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Exhaustion {
    pub(super) episodes: Episodes,
    looks: Looks,
}

impl Monitor {
    /// Looks at who waits. Answers after how much time to look again.
    pub(super) fn scan_waits(&self, snapshot: &Snapshot, now: Moment) -> Option<Duration> {
        let gave_up = self.0.registry.take_gave_up();
        if self.detail() == Detail::Off {
            self.0.exhaustion.lock().episodes = Episodes::default();
            return None;
        }
        let wait = self.0.config.get_wait();
        let interval = self.0.config.get_report_interval();
        // What is not worth a word is still an incident.
        let mut is_repeated = false;
        let mut next: Option<Duration> = None;
        let mut wake_in = |time: Duration| {
            next = Some(next.map_or(time, |next| next.min(time)));
        };
        let mut alarms = Vec::new();
        let mut state = self.0.exhaustion.lock();
        state.looks.look(snapshot, now);
        let stuck = stuck(snapshot);
        let stops = self.0.stops.lock().clone();
        // Nothing could be granted while the process stood still.
        let waited = |waiter: &Waiter| stops.running_between(waiter.waited.0, waiter.waited.1);
        for pool in &snapshot.pools {
            let of_pool = |waiter: &&Waiter| waiter.pool_id == pool.id;
            let oldest = snapshot.waiters.iter().find(of_pool);
            // A client's timeout of the same length ends a little before ours.
            let left = gave_up
                .iter()
                .filter(of_pool)
                .find(|waiter| waited(waiter) * 10 >= wait * 9);
            if oldest.is_none() && left.is_none() {
                continue;
            }
            let Some(record) = self.record(pool.id) else {
                continue;
            };
            let waited = oldest.map_or(Duration::ZERO, &waited);
            let timeout = record.acquire_timeout();
            let pace = (timeout / 10).clamp(Duration::from_millis(10), Duration::from_millis(100));
            if oldest.is_some() {
                wake_in(match wait.checked_sub(waited) {
                    Some(left) => left.clamp(Runtime::SOON, pace),
                    None => pace,
                });
            }
            // What cannot be judged at this look is not over either.
            if waited > wait {
                state.episodes.lasts(pool.id, now);
            }
            let runtime = self.runtime(&record, now, Heed::NOW);
            if let Runtime::Blocked(sentence) = &runtime {
                state.looks.blocked.insert(pool.id, (now, sentence.clone()));
            }
            let deadlock = state
                .looks
                .deadlock(pool.id, &stuck, snapshot, timeout, waited, now);
            // Before it is due, so that what the server says is there by then.
            let is_suspected = stuck.suspected.contains(&pool.id);
            let may_be_due = waited * 4 > wait * 3 && !state.episodes.has_spoken(pool.id);
            if (is_suspected && waited * 2 > patience(timeout)) || may_be_due {
                let of_pool = |holder: &Holder| holder.pool_id == pool.id;
                let mut holders = snapshot.holders.iter().filter(|holder| of_pool(holder));
                if holders.any(is_worth_asking) {
                    self.have_asked(&record, snapshot, EXHAUSTED, now);
                }
            }
            let may_be_heard =
                is_suspected && waited * 4 < timeout * 3 && self.is_asking(pool.id, now);
            if may_be_heard && deadlock.is_some_and(|deadlock| !deadlock.is_certain) {
                wake_in(Runtime::SOON);
                continue;
            }
            // It may prove to be one before long.
            let may_be = deadlock.is_none()
                && (stuck.certain.contains(&pool.id) || may_be_heard)
                && waited < wait + patience(timeout);
            let is_due = waited > wait || left.is_some();
            if deadlock.is_none() && (!is_due || (may_be && left.is_none())) {
                continue;
            }
            let door = &self.0.door;
            // While the runtime does not run, the causes are others: look again when that is known. One
            // that is slow may answer too late each time: what is not known by now is not so.
            let may_be_blocked = matches!(runtime, Runtime::Asked | Runtime::Silent);
            if may_be_blocked && waited < wait + Pulse::LATE * 2 {
                wake_in(Runtime::SOON);
                // Whoever gave up is known now or never.
                if left.is_none() {
                    continue;
                }
            }
            let mut evidence = state.looks.evidence(pool.id, now);
            evidence.deadlock = deadlock;
            evidence.stalled = runtime.sentence();
            let since = oldest.or(left).map_or(now, |waiter| waiter.waited.0);
            if evidence.stalled.is_none() {
                evidence.connecting = self.connecting(&record, pool, snapshot, since, now);
            }
            let cause = causes(pool, snapshot, &evidence);
            let cause = cause.first().map(|cause| cause.kind);
            // What is granted at this moment is nobody's yet: the next look knows whose.
            if cause.is_none() && left.is_none() && waited < wait + wait.min(UNEXPLAINED) {
                wake_in(Runtime::SOON);
                continue;
            }
            let (stage, is_deadlock) = (Stage::Waiting, deadlock.is_some());
            let new_id = || door.lock().new_id();
            let id = state
                .episodes
                .sign(pool.id, stage, is_deadlock, (since, now), new_id);
            if let Some(id) = id {
                let class = (pool.id, stage, cause);
                let admits = |at_any_rate| door.lock().admits(at_any_rate, now);
                let is_said = state.episodes.speaks(class, interval, now, admits);
                if !is_said && evidence.connecting != Connecting::Asked {
                    is_repeated = true;
                    continue;
                }
                let alarm = Alarm {
                    id,
                    stage,
                    pool: pool.clone(),
                    snapshot: snapshot.clone(),
                    evidence,
                    since,
                    failed: left.cloned(),
                    is_said,
                };
                alarms.push((record, alarm));
            }
        }
        let doubts = self.scan_outages(&mut state, snapshot, now);
        let over = state.episodes.over(unasked(interval), now);
        if state.episodes.are_open() {
            wake_in(Duration::from_millis(250));
        }
        let (mut repeats, due) = state.episodes.repeats(interval, now);
        due.into_iter().for_each(&mut wake_in);
        if repeats.is_some() && !self.0.door.lock().admits(false, now) {
            state.episodes.put_back(repeats.take());
        }
        drop(state);
        if is_repeated {
            self.escalate();
        }
        for (record, alarm) in alarms {
            self.alarm(&record, alarm);
        }
        for (record, is_wanted) in doubts {
            self.keep_trying(&record, is_wanted, now);
        }
        for over in over {
            let pool = snapshot.pools.iter().find(|pool| pool.id == over.pool);
            if let Some(pool) = pool {
                self.0.reporter.say(ended(pool, &over));
            }
        }
        if let Some(repeats) = repeats {
            let pool = snapshot.pools.iter().find(|pool| pool.id == repeats.pool);
            if let Some(pool) = pool {
                self.0.reporter.say(repeated(pool, &repeats));
            }
        }
        next
    }

    /// Why the pools in which somebody waits have nothing to give, as far as is known now.
    pub(super) fn causes_now(&self, snapshot: &Snapshot, now: Moment) -> Vec<(String, Cause)> {
        let mut state = self.0.exhaustion.lock();
        state.looks.look(snapshot, now);
        let stuck = stuck(snapshot);
        let mut all = Vec::new();
        for pool in &snapshot.pools {
            let oldest = snapshot
                .waiters
                .iter()
                .find(|waiter| waiter.pool_id == pool.id);
            let (Some(oldest), Some(record)) = (oldest, self.record(pool.id)) else {
                continue;
            };
            let timeout = record.acquire_timeout();
            let mut evidence = state.looks.evidence(pool.id, now);
            evidence.deadlock =
                state
                    .looks
                    .deadlock(pool.id, &stuck, snapshot, timeout, oldest.waited_for, now);
            evidence.connecting = self.connected(&record, pool, snapshot, oldest.waited.0);
            let causes = causes(pool, snapshot, &evidence);
            all.extend(causes.into_iter().map(|cause| (pool.name.clone(), cause)));
        }
        all
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
        if self.detail() == Detail::Off {
            return;
        }
        let now = Moment::now();
        let (since, _) = failed.waited;
        let id = {
            let mut state = self.0.exhaustion.lock();
            let door = &self.0.door;
            let new_id = || door.lock().new_id();
            let stage = Stage::TimedOut;
            let id = state
                .episodes
                .sign(record.id, stage, false, (since, now), new_id);
            if !timed_out && let Some(outage) = state.episodes.outage(record.id) {
                outage.cannot_connect(now, false);
            }
            id
        };
        let Some(id) = id else {
            // Said before; how long it lasts and how often it is so is not known by that.
            if timed_out {
                self.keep_trying(record, true, now);
            }
            return;
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
        let waited = failed.waited_for;
        let mut evidence = {
            let mut state = self.0.exhaustion.lock();
            state.looks.look(&snapshot, now);
            let mut evidence = state.looks.evidence(record.id, now);
            let stuck = stuck(&snapshot);
            let timeout = record.acquire_timeout();
            evidence.deadlock = state
                .looks
                .deadlock(record.id, &stuck, &snapshot, timeout, waited, now);
            if evidence.deadlock.is_some() {
                state.episodes.deadlock_is_said(record.id);
            }
            // This task runs, so the runtime does. It is blamed if it did not while this one waited.
            evidence.stalled = state
                .looks
                .blocked
                .get(&record.id)
                .filter(|(at, _)| now.since(*at) < waited)
                .map(|(_, sentence)| sentence.clone());
            evidence
        };
        evidence.connecting = match (timed_out, &evidence.stalled) {
            (false, _) => {
                let error = error.to_string();
                Connecting::Fails(escape_text(&error, 300).into_owned())
            }
            (true, None) => self.connecting(record, &pool, &snapshot, since, now),
            (true, Some(_)) => Connecting::NotTried,
        };
        let causes = causes(&pool, &snapshot, &evidence);
        let class = (
            record.id,
            Stage::TimedOut,
            causes.first().map(|cause| cause.kind),
        );
        let interval = self.0.config.get_report_interval();
        let admits = |at_any_rate| self.0.door.lock().admits(at_any_rate, now);
        let mut state = self.0.exhaustion.lock();
        let is_said = state.episodes.speaks(class, interval, now, admits);
        drop(state);
        if is_said {
            let unexplained = causes.is_empty().then(|| without_a_cause(&pool, &evidence));
            let unexplained = unexplained.as_deref();
            let line = headline(&pool, Stage::TimedOut, Some(&failed), &causes, unexplained);
            // Here, in the caller's span: its trace leads to the finding.
            event!(target: "leaktrace", Level::ERROR, kind = Kind::Exhausted.as_str(), phase = "timed_out", %id, pool = %pool.name, "{line}");
        } else {
            self.escalate();
        }
        if is_said || evidence.connecting == Connecting::Asked {
            let alarm = Alarm {
                id,
                stage: Stage::TimedOut,
                pool,
                snapshot,
                evidence,
                since,
                failed: Some(failed),
                is_said,
            };
            self.alarm(record, alarm);
        }
        // So that the end of the episode is noticed, also when nothing is out.
        self.0.watchdog.wake_now();
    }

    pub(super) fn is_exhausted(&self) -> bool {
        !self.0.exhaustion.lock().episodes.is_empty()
    }

    /// Raises the detail for a while: the incident instruments itself.
    pub(super) fn escalate(&self) {
        let Some(time) = self.0.config.get_escalate() else {
            return;
        };
        let now = Moment::now();
        if self.0.settings.lock().detail == Detail::Location {
            self.change(|settings| settings.escalated = Some(now.after(time)));
        }
    }

    /// Lowers the detail again when its time is over. True while it is raised.
    pub(super) fn deescalate(&self, now: Moment) -> bool {
        let until = self.0.settings.lock().escalated;
        let is_over = until.is_some_and(|until| until <= now);
        if is_over {
            self.change(|settings| settings.escalated = None);
        }
        until.is_some() && !is_over
    }

    pub(super) fn record(&self, id: u64) -> Option<Arc<PoolRecord>> {
        self.0
            .registry
            .pools()
            .into_iter()
            .find(|pool| pool.id == id)
    }
}
