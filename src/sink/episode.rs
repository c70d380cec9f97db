//! One exhaustion of one pool, from its first sign to its end.
//!
//! Responsible for saying each phase once an episode, and one line when it is over; and for saying the
//! same of a pool that flaps once an interval, with a count of the rest. While no connection can be
//! opened, silence is no end: see [`Outage`]. Pure: it is given the time. Not responsible for causes.

use std::collections::HashMap;
use std::time::Duration;

use super::outage::{Giving, Outage};
use crate::clock::Moment;
use crate::finding::{CauseKind, FindingId};

/// An exhaustion counts as over when nobody waited for long and nobody failed for this time.
const OVER_AFTER: Duration = Duration::from_secs(1);

/// How far an exhaustion has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Something of it was let through.
    said: bool,
    outage: Outage,
}

/// What two exhaustions have in common that are the same news: pool, stage, and the cause with the
/// largest share.
type Class = (u64, Stage, Option<CauseKind>);

/// Episodes of which nothing was said, because the same had been said a short while before.
#[derive(Debug)]
struct Unsaid {
    last: FindingId,
    since: Moment,
    episodes: u64,
    timeouts: u64,
}

/// How often a pool was exhausted without a word.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repeats {
    pub(crate) pool: u64,
    /// That of the last of them.
    pub(crate) finding: FindingId,
    pub(crate) since: Moment,
    pub(crate) episodes: u64,
    pub(crate) timeouts: u64,
}

/// An episode that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) pool: u64,
    pub(crate) finding: FindingId,
    pub(crate) lasted: Duration,
    pub(crate) timeouts: u64,
    pub(crate) end: End,
}

/// Why an episode is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nobody waits for long any more, and nobody fails.
    Quiet,
    /// Nobody has asked for so long, and none could be opened before that.
    Unasked(Duration),
}

impl Episode {
    /// Whether nobody was failed, or waited for long, for a while.
    fn is_quiet(&self, now: Moment) -> bool {
        now.since(self.last_sign) >= OVER_AFTER
    }

    fn end(&self, patience: Duration, now: Moment) -> Option<End> {
        if self.outage.is_settled() {
            return self.is_quiet(now).then_some(End::Quiet);
        }
        let unasked = self.outage.unasked(now);
        (unasked >= patience).then_some(End::Unasked(unasked))
    }
}

/// The open episodes, by pool.
#[derive(Debug, Default)]
pub(crate) struct Episodes {
    open: HashMap<u64, Episode>,
    /// When each class last spoke.
    spoke: HashMap<Class, Moment>,
    /// What was kept back, by pool.
    unsaid: HashMap<u64, Unsaid>,
}

impl Episodes {
    /// More classes than this are forgotten, when they are old: twenty for each pool of a process.
    const CLASSES: usize = 1000;
    /// The first of its class is worth more than the limit by minute.
    const MINUTE: Duration = Duration::from_secs(60);

    /// Notes a sign of exhaustion, of somebody who waits `since` then. Answers the finding to make, if
    /// this stage was not said yet.
    ///
    /// That it is a deadlock is worth saying also when somebody is known to wait: it will not pass,
    /// and whoever waits has not failed yet.
    pub(crate) fn sign(
        &mut self,
        pool: u64,
        stage: Stage,
        is_deadlock: bool,
        (since, now): (Moment, Moment),
        new_id: impl FnOnce() -> FindingId,
    ) -> Option<FindingId> {
        let episode = self.open.entry(pool).or_insert_with(|| Episode {
            finding: new_id(),
            since,
            last_sign: now,
            waiting_said: false,
            timeout_said: false,
            deadlock_said: false,
            timeouts: 0,
            said: false,
            outage: Outage::unknown(now),
        });
        episode.last_sign = now;
        episode.outage.is_wanted(now);
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

    /// Somebody waits for too long at this look too: an open episode goes on.
    pub(crate) fn lasts(&mut self, pool: u64, now: Moment) {
        if let Some(episode) = self.open.get_mut(&pool) {
            episode.last_sign = now;
        }
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

    /// Whether a stage that [`Episodes::sign`] found new may speak: not within the interval after the
    /// same was said of this pool, and not beyond the limit by minute, unless it is the first of its
    /// class in a minute. `admits` is that limit, told whether it counts.
    pub(crate) fn speaks(
        &mut self,
        (pool, stage, cause): Class,
        interval: Duration,
        now: Moment,
        admits: impl FnOnce(bool) -> bool,
    ) -> bool {
        let class = (pool, stage, cause);
        let spoke = self.spoke.get(&class).map(|spoke| now.since(*spoke));
        let is_first = spoke.is_none_or(|ago| ago >= Self::MINUTE);
        if spoke.is_some_and(|ago| ago < interval) || !admits(is_first) {
            return false;
        }
        if self.spoke.len() >= Self::CLASSES {
            let kept = interval.max(Self::MINUTE);
            self.spoke.retain(|_, spoke| now.since(*spoke) < kept);
        }
        self.spoke.insert(class, now);
        if let Some(episode) = self.open.get_mut(&pool) {
            episode.said = true;
        }
        true
    }

    /// A class was told of by what another one said.
    pub(crate) fn spoke(&mut self, class: Class, now: Moment) {
        self.spoke.insert(class, now);
    }

    /// What is known of whether this pool can open connections, while it is exhausted.
    pub(crate) fn outage(&mut self, pool: u64) -> Option<&mut Outage> {
        self.open.get_mut(&pool).map(|episode| &mut episode.outage)
    }

    /// An attempt of ours came through: an outage lasted until now.
    pub(crate) fn connects(&mut self, pool: u64, now: Moment) {
        if let Some(episode) = self.open.get_mut(&pool)
            && episode.outage.connects()
        {
            episode.last_sign = now;
        }
    }

    /// Compares with what was known of whether connections can be opened.
    pub(crate) fn look(&mut self, pool: u64, giving: Giving, now: Moment) {
        if let Some(episode) = self.open.get_mut(&pool)
            && episode.outage.look(giving, now)
        {
            self.connects(pool, now);
        }
    }

    /// The pools of which an attempt would tell whether their exhaustion is over. An acquire that fails
    /// with the error itself tells it as well, as long as there are any.
    pub(crate) fn in_doubt(&self, now: Moment) -> Vec<u64> {
        let open = self.open.iter();
        open.filter(|(_, episode)| episode.outage.is_in_doubt(episode.is_quiet(now)))
            .map(|(pool, _)| *pool)
            .collect()
    }

    /// Whether somebody of this pool wants a connection, or has not long ago.
    pub(crate) fn is_wanted(&self, pool: u64, now: Moment) -> bool {
        let episode = self.open.get(&pool);
        episode.is_some_and(|episode| episode.outage.unasked(now) < OVER_AFTER)
    }

    /// Takes out the count of one pool whose episodes were kept back for an interval; else after how
    /// much time there will be one.
    pub(crate) fn repeats(
        &mut self,
        interval: Duration,
        now: Moment,
    ) -> (Option<Repeats>, Option<Duration>) {
        let Some((&pool, unsaid)) = self.unsaid.iter().min_by_key(|(_, unsaid)| unsaid.since)
        else {
            return (None, None);
        };
        let waited = now.since(unsaid.since);
        if waited < interval {
            return (None, Some(interval - waited));
        }
        let repeats = self.unsaid.remove(&pool).map(|unsaid| Repeats {
            pool,
            finding: unsaid.last,
            since: unsaid.since,
            episodes: unsaid.episodes,
            timeouts: unsaid.timeouts,
        });
        (repeats, None)
    }

    /// Takes out the episodes that are over. Those of which nothing was said are counted. `patience`: as
    /// long an outage is not over because nobody asks.
    pub(crate) fn over(&mut self, patience: Duration, now: Moment) -> Vec<Over> {
        let ends: Vec<(u64, End)> = self
            .open
            .iter()
            .filter_map(|(pool, episode)| Some((*pool, episode.end(patience, now)?)))
            .collect();
        ends.into_iter()
            .filter_map(|(pool, end)| {
                let episode = self.open.remove(&pool)?;
                if !episode.said {
                    let unsaid = self.unsaid.entry(pool).or_insert_with(|| Unsaid {
                        last: episode.finding,
                        since: episode.since,
                        episodes: 0,
                        timeouts: 0,
                    });
                    unsaid.last = episode.finding;
                    unsaid.episodes += 1;
                    unsaid.timeouts += episode.timeouts;
                    return None;
                }
                Some(Over {
                    pool,
                    finding: episode.finding,
                    lasted: episode.last_sign.since(episode.since),
                    timeouts: episode.timeouts,
                    end,
                })
            })
            .collect()
    }

    /// What could not be said yet is counted on.
    pub(crate) fn put_back(&mut self, repeats: Option<Repeats>) {
        if let Some(repeats) = repeats {
            self.unsaid.insert(
                repeats.pool,
                Unsaid {
                    last: repeats.finding,
                    since: repeats.since,
                    episodes: repeats.episodes,
                    timeouts: repeats.timeouts,
                },
            );
        }
    }

    /// Whether a pool is exhausted now.
    pub(crate) fn are_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether there is nothing left to be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.unsaid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000).expect("not zero")
    }

    const INTERVAL: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_secs(30);

    fn speaks(episodes: &mut Episodes, stage: Stage, time: u64) -> bool {
        let class = (1, stage, Some(CauseKind::Saturated));
        episodes.speaks(class, INTERVAL, at(time), |_| true)
    }

    /// An episode of one failure, from this time on and over by two seconds later. Whether it spoke,
    /// and what was said at its end.
    fn failure(episodes: &mut Episodes, time: u64) -> (bool, usize) {
        let id = FindingId(time);
        assert!(
            episodes
                .sign(1, Stage::TimedOut, false, (at(time), at(time)), || id)
                .is_some()
        );
        let spoke = speaks(episodes, Stage::TimedOut, time);
        (spoke, episodes.over(PATIENCE, at(time + 2_000)).len())
    }

    #[test]
    fn a_pool_that_flaps_is_reported_once_an_interval_and_the_rest_is_counted() {
        let mut episodes = Episodes::default();
        assert_eq!(failure(&mut episodes, 1_000), (true, 1));
        assert_eq!(episodes.repeats(INTERVAL, at(3_000)), (None, None));
        for round in 2..=6 {
            assert_eq!(failure(&mut episodes, round * 5_000), (false, 0));
        }
        assert!(!episodes.is_empty(), "a count is to be told");
        let left = Duration::from_secs(30);
        assert_eq!(episodes.repeats(INTERVAL, at(40_000)), (None, Some(left)));
        let repeats = Repeats {
            pool: 1,
            finding: FindingId(30_000),
            since: at(10_000),
            episodes: 5,
            timeouts: 5,
        };
        assert_eq!(
            episodes.repeats(INTERVAL, at(70_000)),
            (Some(repeats), None)
        );
        assert!(episodes.is_empty());
        assert_eq!(
            failure(&mut episodes, 75_000),
            (true, 1),
            "an interval later"
        );
    }

    #[test]
    fn while_somebody_waits_on_it_is_not_over_though_nothing_can_be_said() {
        let mut episodes = Episodes::default();
        episodes.sign(1, Stage::Waiting, false, (at(1_000), at(1_000)), || {
            FindingId(1)
        });
        assert!(speaks(&mut episodes, Stage::Waiting, 1_000));
        episodes.lasts(1, at(1_900));
        assert!(episodes.over(PATIENCE, at(2_800)).is_empty());
        episodes.lasts(2, at(2_800));
        assert_eq!(
            episodes.over(PATIENCE, at(2_900)).len(),
            1,
            "only of its own pool"
        );
        assert!(episodes.is_empty());
    }

    #[test]
    fn another_stage_cause_or_pool_is_another_class_and_speaks() {
        let mut episodes = Episodes::default();
        let (saturated, deadlock) = (Some(CauseKind::Saturated), Some(CauseKind::Deadlock));
        for class in [
            (1, Stage::Waiting, saturated),
            (1, Stage::TimedOut, saturated),
            (1, Stage::Waiting, deadlock),
            (1, Stage::Waiting, None),
            (2, Stage::Waiting, saturated),
        ] {
            let mut speaks = || episodes.speaks(class, INTERVAL, at(1_000), |first| first);
            assert!(speaks(), "{class:?}");
            assert!(!speaks(), "{class:?} again");
        }
    }

    #[test]
    fn the_limit_by_minute_holds_a_repetition_and_never_the_first_of_a_class() {
        let mut episodes = Episodes::default();
        let class = (1, Stage::TimedOut, None);
        let mut speaks = |time| {
            let no_interval = Duration::ZERO;
            episodes.speaks(class, no_interval, at(time), |at_any_rate| at_any_rate)
        };
        assert!(speaks(1_000));
        assert!(!speaks(30_000), "there is no room");
        assert!(speaks(61_000), "a minute later it is news again");
    }

    #[test]
    fn each_stage_is_said_once_an_episode_under_one_id() {
        let mut episodes = Episodes::default();
        let id = || FindingId(7);
        let mut sign = |stage, time| episodes.sign(1, stage, false, (at(time), at(time)), id);
        assert_eq!(sign(Stage::Waiting, 1), Some(FindingId(7)));
        assert_eq!(sign(Stage::Waiting, 500), None);
        assert_eq!(sign(Stage::TimedOut, 900), Some(FindingId(7)));
        assert_eq!(sign(Stage::TimedOut, 950), None);
        assert_eq!(sign(Stage::Waiting, 990), None, "no news after a failure");
    }

    #[test]
    fn an_episode_is_over_a_second_after_its_last_sign_and_then_begins_anew() {
        let mut episodes = Episodes::default();
        episodes.sign(1, Stage::Waiting, false, (at(1), at(401)), || FindingId(1));
        episodes.sign(1, Stage::TimedOut, false, (at(1), at(801)), || FindingId(2));
        assert!(speaks(&mut episodes, Stage::TimedOut, 801));
        assert_eq!(episodes.over(PATIENCE, at(1800)), []);
        let over = Over {
            pool: 1,
            finding: FindingId(1),
            lasted: Duration::from_millis(800),
            timeouts: 1,
            end: End::Quiet,
        };
        assert_eq!(episodes.over(PATIENCE, at(1801)), [over]);
        assert!(episodes.is_empty());
        let again = episodes.sign(1, Stage::Waiting, false, (at(4800), at(5000)), || {
            FindingId(3)
        });
        assert_eq!(again, Some(FindingId(3)));
    }

    #[test]
    fn a_deadlock_is_news_once_also_when_somebody_is_known_to_wait() {
        let mut episodes = Episodes::default();
        let mut sign = |is_deadlock, time| {
            episodes
                .sign(1, Stage::Waiting, is_deadlock, (at(time), at(time)), || {
                    FindingId(7)
                })
                .is_some()
        };
        assert!(sign(false, 1));
        assert!(sign(true, 100));
        assert!(!sign(true, 200));
        assert!(!sign(false, 300));
    }

    fn known(episodes: &mut Episodes) -> &mut Outage {
        episodes.outage(1).expect("it is open")
    }

    /// Somebody failed who waited for a second, and an attempt of ours to connect did too.
    fn outage() -> Episodes {
        let mut episodes = Episodes::default();
        let times = (at(1_000), at(2_000));
        let id = episodes.sign(1, Stage::TimedOut, false, times, || FindingId(1));
        assert!(id.is_some() && speaks(&mut episodes, Stage::TimedOut, 2_000));
        known(&mut episodes).asks();
        assert_eq!(episodes.over(PATIENCE, at(5_000)), [], "not known yet");
        known(&mut episodes).cannot_connect(at(2_100), true);
        known(&mut episodes).asked();
        assert_eq!(episodes.over(PATIENCE, at(9_000)), [], "nobody asks");
        episodes
    }

    fn ends(episodes: &mut Episodes, time: u64) -> (Duration, End) {
        match episodes.over(PATIENCE, at(time)).as_slice() {
            [over] => (over.lasted, over.end),
            others => panic!("{others:?}"),
        }
    }

    #[test]
    fn an_outage_lasts_until_an_attempt_comes_through() {
        let mut episodes = outage();
        assert_eq!(episodes.in_doubt(at(9_000)), [1]);
        episodes.connects(1, at(10_000));
        assert_eq!(episodes.in_doubt(at(10_000)), [] as [u64; 0]);
        let nine = Duration::from_secs(9);
        assert_eq!(ends(&mut episodes, 11_000), (nine, End::Quiet));
    }

    #[test]
    fn an_outage_lasts_until_somebody_gets_a_connection() {
        let look = |idle, granted: Option<u64>| Giving {
            is_wanted: false,
            idle,
            granted: granted.map(at),
        };
        for (before, after) in [
            (look(0, None), look(0, Some(8_000))),
            (look(3, Some(1_500)), look(2, Some(8_000))),
            (look(2, None), look(3, None)),
        ] {
            let mut episodes = outage();
            episodes.look(1, before, at(9_000));
            assert_eq!(episodes.over(PATIENCE, at(9_500)), [], "{before:?}");
            episodes.look(1, after, at(10_000));
            assert_eq!(ends(&mut episodes, 11_000).1, End::Quiet, "{after:?}");
        }
    }

    #[test]
    fn an_outage_in_which_nobody_asks_ends_as_that() {
        let mut episodes = outage();
        let waits = Giving {
            is_wanted: true,
            idle: 0,
            granted: None,
        };
        episodes.look(1, waits, at(20_000));
        assert!(episodes.is_wanted(1, at(20_900)) && !episodes.is_wanted(1, at(21_000)));
        assert_eq!(episodes.over(PATIENCE, at(49_000)), []);
        let unasked = (Duration::from_secs(1), End::Unasked(PATIENCE));
        assert_eq!(ends(&mut episodes, 50_000), unasked);
    }

    #[test]
    fn who_fails_with_the_error_itself_needs_no_attempt_until_it_is_quiet() {
        let mut episodes = Episodes::default();
        let times = (at(1_000), at(1_000));
        episodes.sign(1, Stage::TimedOut, false, times, || FindingId(1));
        known(&mut episodes).cannot_connect(at(1_000), false);
        assert_eq!(episodes.in_doubt(at(1_500)), [] as [u64; 0]);
        assert_eq!(episodes.in_doubt(at(2_000)), [1]);
    }

    #[test]
    fn an_attempt_that_came_through_prolongs_nothing() {
        let mut episodes = Episodes::default();
        let times = (at(1_000), at(2_000));
        episodes.sign(1, Stage::TimedOut, false, times, || FindingId(1));
        speaks(&mut episodes, Stage::TimedOut, 2_000);
        episodes.connects(1, at(2_900));
        let second = Duration::from_secs(1);
        assert_eq!(ends(&mut episodes, 3_000), (second, End::Quiet));
    }
}
