//! The findings about an exhaustion, from what was seen and what can be asked.
//!
//! Responsible for asking the server where that tells more, with a limit, and for saying the finding
//! on any path. Not responsible for noticing that a pool is exhausted or for when to say so: see
//! `exhaustion`.

use std::sync::Arc;
use std::time::Duration;

use super::Monitor;
use super::outage::Asking;
use super::witness::{NEWS, is_worth_asking};
use crate::clock::{Moment, span, time_of_day};
use crate::finding::{Cause, CauseKind, Finding, FindingId, Kind, Severity};
use crate::judge::{Connecting, Evidence, causes, stuck, without_a_cause};
use crate::registry::{Holder, PoolInfo, PoolRecord, Snapshot, Waiter};
use crate::sink::{End, Over, Repeats, Stage};

/// A finding to be made, with all that it needs.
pub(super) struct Alarm {
    pub(super) id: FindingId,
    pub(super) stage: Stage,
    pub(super) pool: PoolInfo,
    pub(super) snapshot: Snapshot,
    pub(super) evidence: Evidence,
    /// From when on they wait of whom it speaks.
    pub(super) since: Moment,
    /// Whose acquire failed, or who gave up.
    pub(super) failed: Option<Waiter>,
    /// False where the same was said not long ago. It is news if no connection can be opened.
    pub(super) is_said: bool,
}

/// An alarm that is said on any path, also when the runtime drops the task that completes it.
struct Unsaid {
    monitor: Monitor,
    alarm: Option<Alarm>,
}

impl Drop for Unsaid {
    fn drop(&mut self) {
        if let Some(alarm) = self.alarm.take().filter(|alarm| alarm.is_said) {
            self.monitor.0.reporter.say(finding(alarm));
        }
    }
}

impl Monitor {
    /// Makes the finding, after an attempt to connect and a question to the server where those may
    /// tell more.
    pub(super) fn alarm(&self, record: &Arc<PoolRecord>, alarm: Alarm) {
        /// With the time until an exhaustion is noticed, less than a client's patience.
        const PATIENCE: Duration = Duration::from_millis(400);
        self.escalate();
        let evidence = &alarm.evidence;
        let connects = evidence.connecting == Connecting::Asked;
        let of_pool = |holder: &&Holder| holder.pool_id == record.id;
        let mut holders = alarm.snapshot.holders.iter().filter(of_pool);
        let asks = alarm.is_said && evidence.stalled.is_none() && holders.any(is_worth_asking);
        let mut unsaid = Unsaid {
            monitor: self.clone(),
            alarm: Some(alarm),
        };
        let Some(runtime) = record.runtime().filter(|_| connects || asks) else {
            return;
        };
        let now = Moment::now();
        let question = match &unsaid.alarm {
            Some(alarm) if asks => self.question(record, &alarm.snapshot, NEWS, now),
            _ => None,
        };
        if question.is_none() && !connects {
            return;
        }
        // In a task of its own: the finding does not wait for all of it.
        let question = question.map(|question| runtime.spawn(question));
        let record = Arc::clone(record);
        let asking = connects.then(|| Asking::begin(self, record.id));
        runtime.spawn(async move {
            if let Some(question) = question {
                let _ = tokio::time::timeout(PATIENCE, question).await;
                if let Some(alarm) = &mut unsaid.alarm {
                    unsaid.monitor.hear(alarm);
                }
            }
            if let (Some(asking), Some(alarm)) = (asking, &mut unsaid.alarm) {
                alarm.evidence.connecting = asking.attempt(&record, alarm.since, true).await;
                unsaid.monitor.is_news(alarm);
            }
        });
    }

    /// What is said of an outage is said of it for a while, also where that was not known at first; and
    /// where it is the only news, it is said.
    fn is_news(&self, alarm: &mut Alarm) {
        if !matches!(alarm.evidence.connecting, Connecting::Fails(_)) {
            return;
        }
        let causes = causes(&alarm.pool, &alarm.snapshot, &alarm.evidence);
        let first = causes.first().map(|cause| cause.kind);
        if first != Some(CauseKind::Connecting) {
            return;
        }
        let now = Moment::now();
        let class = (alarm.pool.id, alarm.stage, first);
        let mut state = self.0.exhaustion.lock();
        if alarm.is_said {
            state.episodes.spoke(class, now);
            return;
        }
        let interval = self.0.config.get_report_interval();
        let admits = |at_any_rate| self.0.door.lock().admits(at_any_rate, now);
        alarm.is_said = state.episodes.speaks(class, interval, now, admits);
    }

    /// Joins to an alarm what the server has said since. A deadlock that was suspected is one, or is
    /// none, by its word.
    fn hear(&self, alarm: &mut Alarm) {
        let holders = &mut alarm.snapshot.holders;
        self.0.registry.join_testimonies(holders, Moment::now());
        if let Some(deadlock) = &mut alarm.evidence.deadlock
            && !deadlock.is_certain
        {
            let stuck = stuck(&alarm.snapshot);
            deadlock.is_certain = stuck.certain.contains(&alarm.pool.id);
            if !deadlock.is_certain && !stuck.suspected.contains(&alarm.pool.id) {
                alarm.evidence.deadlock = None;
            }
        }
    }
}

pub(super) fn finding(alarm: Alarm) -> Finding {
    let Alarm {
        id,
        stage,
        pool,
        snapshot,
        evidence,
        failed,
        ..
    } = alarm;
    let causes = causes(&pool, &snapshot, &evidence);
    let unexplained = causes.is_empty().then(|| without_a_cause(&pool, &evidence));
    let headline = headline(
        &pool,
        stage,
        failed.as_ref(),
        &causes,
        unexplained.as_deref(),
    );
    let mut waiters = snapshot.waiters;
    waiters.retain(|waiter| waiter.pool_id == pool.id);
    // Who gave up when the copy had just been made is in both.
    let left = failed.filter(|_| stage == Stage::Waiting);
    waiters.retain(|waiter| left.as_ref().is_none_or(|left| left.id != waiter.id));
    let count = waiters.len() as u64;
    waiters.extend(left);
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
        unexplained,
        count: count.max(1),
        ..Finding::new(id, Kind::Exhausted, &pool, headline)
    }
}

pub(super) fn headline(
    pool: &PoolInfo,
    stage: Stage,
    failed: Option<&Waiter>,
    causes: &[Cause],
    unexplained: Option<&str>,
) -> String {
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
    match (causes.first(), unexplained) {
        (Some(first), _) => line += &format!(": {}", first.detail),
        (None, Some(words)) => line += &format!(" · {words}"),
        (None, None) => {}
    }
    line
}

fn failures(count: u64) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} acquire{s} failed")
}

pub(super) fn ended(pool: &PoolInfo, over: &Over) -> Finding {
    let (name, status) = (&pool.name, &pool.status);
    let lasted = span(over.lasted);
    let out = status.held.saturating_add(status.returning);
    let end = match over.end {
        End::Unasked(time) => format!(
            "nobody has asked pool \"{name}\" for a connection for {}, and none could be opened before that",
            span(time)
        ),
        End::Quiet if out < status.max => {
            format!("pool \"{name}\" is no longer exhausted, after {lasted}")
        }
        End::Quiet => {
            // Nobody got anything: those who waited are gone.
            let long = if status.waiting > 0 { " for long" } else { "" };
            format!(
                "nobody waits{long} for pool \"{name}\" any more, after {lasted}; {out}/{} are still out",
                status.max
            )
        }
    };
    let headline = format!("{end}; {}", failures(over.timeouts));
    Finding {
        severity: Severity::Info,
        count: over.timeouts,
        ..Finding::new(over.finding, Kind::Exhausted, pool, headline)
    }
}

pub(super) fn repeated(pool: &PoolInfo, repeats: &Repeats) -> Finding {
    let Repeats {
        episodes, timeouts, ..
    } = repeats;
    let times = if *episodes == 1 { "time" } else { "times" };
    let headline = format!(
        "pool \"{}\" was exhausted {episodes} more {times} since {}, as reported before and therefore not one by one; {}",
        pool.name,
        time_of_day(repeats.since.wall()),
        failures(*timeouts),
    );
    Finding {
        severity: Severity::Info,
        count: *timeouts,
        ..Finding::new(repeats.finding, Kind::Exhausted, pool, headline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::PoolStatus;

    fn pool(held: u32, waiting: u32) -> PoolInfo {
        PoolInfo {
            id: 1,
            name: "shop".into(),
            status: PoolStatus {
                held,
                waiting,
                max: 5,
                size: 5,
                idle: 5 - held,
                ..PoolStatus::default()
            },
            ..PoolInfo::default()
        }
    }

    fn alarm(waiters: Vec<Waiter>, failed: Option<Waiter>) -> Alarm {
        Alarm {
            id: FindingId(1),
            stage: Stage::TimedOut,
            pool: pool(0, 2),
            snapshot: Snapshot {
                holders: Vec::new(),
                waiters,
                pools: Vec::new(),
                totals: Vec::new(),
                closings: Vec::new(),
                dropped: 0,
            },
            evidence: Evidence::default(),
            since: Moment::FIRST,
            failed,
            is_said: true,
        }
    }

    #[test]
    fn who_gave_up_when_the_copy_had_just_been_made_is_named_once() {
        let mut alarm = alarm(
            vec![Waiter::bare(1), Waiter::bare(2)],
            Some(Waiter::bare(1)),
        );
        alarm.stage = Stage::Waiting;
        let finding = finding(alarm);
        let ids: Vec<_> = finding.waiters.iter().map(|waiter| waiter.id).collect();
        assert_eq!((ids, finding.count), (vec![2, 1], 1));
    }

    #[test]
    fn the_end_of_an_episode_says_whether_anything_came_back() {
        let ended = |pool: &PoolInfo, timeouts, end| {
            let over = Over {
                pool: 1,
                finding: FindingId(1),
                lasted: Duration::from_millis(5500),
                timeouts,
                end,
            };
            super::ended(pool, &over).headline
        };
        let said = |pool: &PoolInfo, timeouts| ended(pool, timeouts, End::Quiet);
        assert_eq!(
            said(&pool(2, 0), 1),
            "pool \"shop\" is no longer exhausted, after 5.5 s; 1 acquire failed"
        );
        assert_eq!(
            said(&pool(5, 0), 2),
            "nobody waits for pool \"shop\" any more, after 5.5 s; 5/5 are still out; 2 acquires failed"
        );
        assert_eq!(
            said(&pool(5, 1), 0),
            "nobody waits for long for pool \"shop\" any more, after 5.5 s; 5/5 are still out; 0 acquires failed"
        );
        assert_eq!(
            ended(&pool(0, 0), 3, End::Unasked(Duration::from_secs(60))),
            "nobody has asked pool \"shop\" for a connection for 60.0 s, and none could be opened before \
             that; 3 acquires failed"
        );
    }

    #[test]
    fn a_failure_without_a_cause_says_what_is_known() {
        let alarm = alarm(Vec::new(), None);
        let finding = finding(alarm);
        let words = "nothing that leaktrace sees explains it: 5 places are free";
        assert!(finding.headline.contains(words), "{finding}");
        assert_eq!(finding.to_string().matches(words).count(), 2, "{finding}");
    }
}
