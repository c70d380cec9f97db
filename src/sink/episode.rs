//! One exhaustion of one pool, from its first sign to its end.
//!
//! Responsible for saying each phase once an episode, and one line when it is over. Pure: it is given
//! the time. Not responsible for causes.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::finding::FindingId;

/// An exhaustion counts as over when nobody waited for long and nobody failed for this time.
const OVER_AFTER: Duration = Duration::from_secs(1);

/// How far an exhaustion has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Somebody has waited for long.
    Waiting,
    /// An acquire has failed.
    TimedOut,
}

#[derive(Debug)]
struct Episode {
    finding: FindingId,
    since: Moment,
    last_sign: Moment,
    waiting_said: bool,
    timeout_said: bool,
    deadlock_said: bool,
    timeouts: u64,
}

/// An episode that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) pool: u64,
    pub(crate) finding: FindingId,
    pub(crate) lasted: Duration,
    pub(crate) timeouts: u64,
}

/// The open episodes, by pool.
#[derive(Debug, Default)]
pub(crate) struct Episodes {
    open: HashMap<u64, Episode>,
}

impl Episodes {
    /// Notes a sign of exhaustion. Answers the finding to make, if this stage was not said yet.
    ///
    /// That it is a deadlock is worth saying also when somebody is known to wait: it will not pass,
    /// and whoever waits has not failed yet.
    pub(crate) fn sign(
        &mut self,
        pool: u64,
        stage: Stage,
        is_deadlock: bool,
        now: Moment,
        new_id: impl FnOnce() -> FindingId,
    ) -> Option<FindingId> {
        let episode = self.open.entry(pool).or_insert_with(|| Episode {
            finding: new_id(),
            since: now,
            last_sign: now,
            waiting_said: false,
            timeout_said: false,
            deadlock_said: false,
            timeouts: 0,
        });
        episode.last_sign = now;
        let said = match stage {
            Stage::Waiting if is_deadlock => episode.deadlock_said,
            // After a failure, that somebody waits is no news.
            Stage::Waiting => episode.waiting_said || episode.timeout_said,
            Stage::TimedOut => {
                episode.timeouts += 1;
                episode.timeout_said
            }
        };
        match stage {
            Stage::Waiting => episode.waiting_said = true,
            Stage::TimedOut => episode.timeout_said = true,
        }
        episode.deadlock_said |= is_deadlock;
        (!said).then_some(episode.finding)
    }

    /// Whether something was said of this pool's exhaustion.
    pub(crate) fn has_spoken(&self, pool: u64) -> bool {
        self.open.contains_key(&pool)
    }

    /// A finding of another stage names the deadlock.
    pub(crate) fn deadlock_is_said(&mut self, pool: u64) {
        if let Some(episode) = self.open.get_mut(&pool) {
            episode.deadlock_said = true;
        }
    }

    /// Takes out the episodes that are over.
    pub(crate) fn over(&mut self, now: Moment) -> Vec<Over> {
        let over = |episode: &Episode| now.since(episode.last_sign) >= OVER_AFTER;
        let pools: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, episode)| over(episode))
            .map(|(pool, _)| *pool)
            .collect();
        pools
            .into_iter()
            .filter_map(|pool| {
                let episode = self.open.remove(&pool)?;
                Some(Over {
                    pool,
                    finding: episode.finding,
                    lasted: episode.last_sign.since(episode.since),
                    timeouts: episode.timeouts,
                })
            })
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000).expect("not zero")
    }

    #[test]
    fn each_stage_is_said_once_an_episode_under_one_id() {
        let mut episodes = Episodes::default();
        let id = || FindingId(7);
        let mut sign = |stage, time| episodes.sign(1, stage, false, at(time), id);
        assert_eq!(sign(Stage::Waiting, 1), Some(FindingId(7)));
        assert_eq!(sign(Stage::Waiting, 500), None);
        assert_eq!(sign(Stage::TimedOut, 900), Some(FindingId(7)));
        assert_eq!(sign(Stage::TimedOut, 950), None);
        assert_eq!(sign(Stage::Waiting, 990), None, "no news after a failure");
    }

    #[test]
    fn an_episode_is_over_a_second_after_its_last_sign_and_then_begins_anew() {
        let mut episodes = Episodes::default();
        episodes.sign(1, Stage::Waiting, false, at(1), || FindingId(1));
        episodes.sign(1, Stage::TimedOut, false, at(801), || FindingId(2));
        assert_eq!(episodes.over(at(1800)), []);
        let over = Over {
            pool: 1,
            finding: FindingId(1),
            lasted: Duration::from_millis(800),
            timeouts: 1,
        };
        assert_eq!(episodes.over(at(1801)), [over]);
        assert!(episodes.is_empty());
        let again = episodes.sign(1, Stage::Waiting, false, at(5000), || FindingId(3));
        assert_eq!(again, Some(FindingId(3)));
    }

    #[test]
    fn a_deadlock_is_news_once_also_when_somebody_is_known_to_wait() {
        let mut episodes = Episodes::default();
        let mut sign = |is_deadlock, time| {
            episodes
                .sign(1, Stage::Waiting, is_deadlock, at(time), || FindingId(7))
                .is_some()
        };
        assert!(sign(false, 1));
        assert!(sign(true, 100));
        assert!(!sign(true, 200));
        assert!(!sign(false, 300));
    }
}
