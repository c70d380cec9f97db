//! What a database server says of its own backends.
//!
//! Responsible for the words of a testimony, for keeping the latest one of each holder, and for
//! joining it to the copy of that holder: only while the holder has done nothing since the question.
//! Not responsible for asking ([`Gauges::testify`](super::Gauges::testify)) or for when to ask
//! (`monitor`).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use super::holder::{Activity, Holder, HolderId, Phase};
use super::locks::{Blocker, join_locks};
use crate::clock::{Moment, span};
use crate::sync::Mutex;

/// What a server says that a backend does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "json",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum ServerState {
    /// A statement runs.
    InFlight,
    /// No statement runs.
    Idle,
    /// No statement runs, and a transaction is open, perhaps aborted.
    IdleInTransaction,
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ServerState::InFlight => "in flight",
            ServerState::Idle => "idle",
            ServerState::IdleInTransaction => "idle in transaction",
        })
    }
}

/// What the database server said of a holder's connection, over a connection beside the pool.
///
/// It is left out as soon as the holder is seen to do anything after the question. What runs on a
/// raw loan is not seen, so mind [`asked_ago`](Self::asked_ago).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Testimony {
    /// What the backend did.
    pub state: ServerState,
    /// For how long, when the server was asked.
    #[cfg_attr(
        feature = "json",
        serde(rename = "state_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub state_for: Duration,
    /// How long ago the server was asked.
    #[cfg_attr(
        feature = "json",
        serde(rename = "asked_ago_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub asked_ago: Duration,
    /// The statement that ran, or the last one that did, masked.
    pub sql: Option<String>,
    /// What the statement waited for, in the server's words; `None` when it worked.
    pub waits_for: Option<String>,
    /// Who kept it from going on.
    pub blocked_by: Vec<Blocker>,
}

/// What is asked of a server, in one go for all holders of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) backends: Vec<i64>,
    /// Whether each client has a backend of its own was not looked at yet.
    pub(crate) is_first: bool,
}

/// What came of a question.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Nothing: no connection, no privilege, no time.
    Silence,
    /// Something between us and the server shares backends between clients: no backend is anybody's.
    Pooler,
    Said(Vec<Said>),
}

/// What a server says of one backend.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) backend: i64,
    /// For how long that backend has been there, where the server tells it.
    pub(crate) age: Option<Duration>,
    pub(crate) testimony: Testimony,
}

/// What was seen of a holder: as long as it is the same, nothing was seen to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    uses: u32,
    rows: u64,
    parked: bool,
    since: SystemTime,
    is_held: bool,
}

impl Holder {
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            uses: self.uses,
            rows: self.rows,
            parked: self.parked,
            since: self.seen_since,
            is_held: self.phase == Phase::Held,
        }
    }

    /// Whether the server has said, not long ago, that a statement runs on it.
    pub(crate) fn was_at_work(&self) -> bool {
        self.server.as_ref().is_some_and(|said| {
            said.state == ServerState::InFlight && said.asked_ago < Testimony::RECENT
        })
    }

    /// `idle in transaction, pid 4711`, and when that was.
    pub(crate) fn server_says(&self) -> Option<String> {
        let said = self.server.as_ref()?;
        let ago = match said.asked_ago {
            ago if ago < Testimony::FRESH => String::new(),
            ago => format!(" {} ago", span(ago)),
        };
        let pid = self
            .backend
            .map_or_else(String::new, |pid| format!(", pid {pid}"));
        // Where it does not settle what is done there, its time says why.
        let time = match self.activity {
            Activity::Unknown { .. } => format!(" for {}", span(said.state_for)),
            Activity::Idle { .. } | Activity::InFlight { .. } => String::new(),
        };
        Some(format!("server{ago}: {}{time}{pid}", said.state))
    }
}

impl Testimony {
    /// As old as this it still counts as the state of now.
    pub(crate) const FRESH: Duration = Duration::from_secs(2);

    /// A state that has lasted for this long is no moment between two statements.
    const SETTLED: Duration = Duration::from_millis(500);
    /// As old as this it still speaks for its holder: by then the server can have been asked again.
    pub(crate) const RECENT: Duration = Duration::from_secs(11);

    pub(crate) fn is_fresh(&self) -> bool {
        self.asked_ago < Self::FRESH
    }
}

struct Kept {
    stamp: Stamp,
    asked_at: Moment,
    testimony: Testimony,
}

/// The latest testimony of each holder.
#[derive(Default)]
pub(super) struct Testimonies(Mutex<HashMap<HolderId, Kept>>);

impl Testimonies {
    /// A server may round, and its clock is not ours.
    const SLACK: Duration = Duration::from_secs(1);

    /// Keeps what was said of those that have done nothing since the question: `before` and `after`
    /// are the pool's holders when it was asked and when it was answered.
    pub(super) fn keep(
        &self,
        said: Vec<Said>,
        before: &[Holder],
        after: &[Holder],
        asked_at: Moment,
    ) {
        let still: HashMap<HolderId, Stamp> = after
            .iter()
            .map(|holder| (holder.id, holder.stamp()))
            .collect();
        let mut kept = self.0.lock();
        kept.retain(|holder, _| still.contains_key(holder));
        // One that is held and not there is on another server: a name can stand for several.
        let is_elsewhere = |holder: &Holder| {
            holder.phase == Phase::Held
                && still.get(&holder.id) == Some(&holder.stamp())
                && holder
                    .backend
                    .is_some_and(|backend| said.iter().all(|said| said.backend != backend))
        };
        if before.iter().any(is_elsewhere) {
            return;
        }
        for mut said in said {
            let is_it = |holder: &&Holder| {
                holder.phase == Phase::Held
                    && holder.backend == Some(said.backend)
                    && still.get(&holder.id) == Some(&holder.stamp())
            };
            let Some(holder) = before.iter().find(is_it) else {
                continue;
            };
            // One that is younger than the checkout has taken over the name of another.
            if said
                .age
                .is_some_and(|age| age + Self::SLACK < holder.held_for)
            {
                continue;
            }
            for blocker in &mut said.testimony.blocked_by {
                let own = before
                    .iter()
                    .find(|holder| holder.backend == Some(blocker.backend));
                if let Some(own) = own {
                    blocker.is_holder(own);
                }
            }
            kept.insert(
                holder.id,
                Kept {
                    stamp: holder.stamp(),
                    asked_at,
                    testimony: said.testimony,
                },
            );
        }
    }

    /// Joins to each holder what was said of it. An activity that was not seen becomes the one that
    /// the server has just told.
    pub(super) fn join(&self, holders: &mut [Holder], now: Moment) {
        let kept = self.0.lock();
        if kept.is_empty() {
            return;
        }
        for holder in &mut *holders {
            let Some(kept) = kept.get(&holder.id) else {
                continue;
            };
            if kept.stamp != holder.stamp() {
                continue;
            }
            let testimony = Testimony {
                asked_ago: now.since(kept.asked_at),
                ..kept.testimony.clone()
            };
            holder.testify(testimony);
        }
        drop(kept);
        join_locks(holders);
    }

    /// Of how many holders something is kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Holder {
    fn testify(&mut self, testimony: Testimony) {
        let is_unknown = matches!(self.activity, Activity::Unknown { .. });
        // A moment between two statements, or one of many, says little of a loan.
        let is_settled = testimony.state_for >= Testimony::SETTLED
            || testimony.state_for * 2 >= self.activity_for;
        if is_unknown && is_settled && testimony.is_fresh() {
            // It may have been idle since before it was checked out.
            let time = (testimony.state_for + testimony.asked_ago).min(self.held_for);
            let since = self.acquired_at + (self.held_for - time);
            self.activity = match testimony.state {
                ServerState::InFlight => Activity::InFlight { since },
                ServerState::Idle | ServerState::IdleInTransaction => Activity::Idle { since },
            };
            self.activity_for = time;
            // Not what may have been so since: only what was so when it was asked.
            self.activity_running_for = testimony.state_for.min(self.running_for);
            self.in_transaction = match testimony.state {
                ServerState::IdleInTransaction => true,
                ServerState::Idle => false,
                ServerState::InFlight => self.in_transaction,
            };
        }
        self.server = Some(testimony);
    }
}

/// Whether two of these have the same backend: then no backend is anybody's.
pub(crate) fn share_a_backend(holders: &[&Holder]) -> bool {
    let mut seen = HashSet::new();
    holders
        .iter()
        .filter(|holder| holder.phase == Phase::Held)
        .filter_map(|holder| holder.backend)
        .any(|backend| !seen.insert(backend))
}

#[cfg(test)]
mod tests {
    use super::super::holder::{Cut, ScopeInfo};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000).expect("not zero")
    }

    fn lent() -> Holder {
        Holder {
            backend: Some(4711),
            held_for: SECOND * 10,
            running_for: SECOND * 10,
            uses: 1,
            lent: true,
            activity: Activity::Unknown {
                since: SystemTime::UNIX_EPOCH,
            },
            ..Holder::harmless()
        }
    }

    fn said(state: ServerState) -> Said {
        Said {
            backend: 4711,
            age: Some(SECOND * 60),
            testimony: Testimony {
                state,
                state_for: SECOND * 4,
                asked_ago: Duration::ZERO,
                sql: None,
                waits_for: None,
                blocked_by: Vec::new(),
            },
        }
    }

    fn joined(said: Said, before: &Holder, after: &Holder, now: u64) -> Holder {
        let testimonies = Testimonies::default();
        testimonies.keep(
            vec![said],
            std::slice::from_ref(before),
            std::slice::from_ref(after),
            at(100),
        );
        let mut holders = [after.clone()];
        testimonies.join(&mut holders, at(now));
        let [holder] = holders;
        holder
    }

    #[test]
    fn what_was_not_seen_becomes_what_the_server_tells() {
        let holder = joined(said(ServerState::IdleInTransaction), &lent(), &lent(), 101);
        assert!(holder.is_idle_in_transaction());
        assert_eq!(holder.activity_for, SECOND * 5);
        assert_eq!(
            holder.activity_running_for,
            SECOND * 4,
            "not since the question"
        );
        let holder = joined(said(ServerState::InFlight), &lent(), &lent(), 101);
        assert!(matches!(holder.activity, Activity::InFlight { .. }));
    }

    #[test]
    fn what_was_told_a_while_ago_is_shown_and_not_taken_for_now() {
        let holder = joined(said(ServerState::Idle), &lent(), &lent(), 103);
        assert!(matches!(holder.activity, Activity::Unknown { .. }));
        let words = holder.server_says();
        assert_eq!(
            words.as_deref(),
            Some("server 3.0 s ago: idle for 4.0 s, pid 4711")
        );
    }

    #[test]
    fn a_moment_between_two_statements_does_not_settle_what_is_done_there() {
        let lent = Holder {
            activity_for: SECOND * 3,
            ..lent()
        };
        let mut moment = said(ServerState::Idle);
        moment.testimony.state_for = Duration::from_millis(40);
        let holder = joined(moment, &lent, &lent, 101);
        assert!(matches!(holder.activity, Activity::Unknown { .. }));
        let words = holder.server_says();
        assert_eq!(words.as_deref(), Some("server: idle for 40 ms, pid 4711"));
    }

    #[test]
    fn what_was_seen_stays_what_was_seen() {
        let seen = Holder {
            activity: Activity::InFlight {
                since: SystemTime::UNIX_EPOCH,
            },
            ..lent()
        };
        let holder = joined(said(ServerState::Idle), &seen, &seen, 101);
        assert!(matches!(holder.activity, Activity::InFlight { .. }));
        assert!(holder.server.is_some());
    }

    #[test]
    fn a_testimony_of_before_the_last_use_is_not_shown() {
        let used = Holder { uses: 2, ..lent() };
        let said = || said(ServerState::Idle);
        assert!(joined(said(), &lent(), &used, 101).server.is_none());
        let testimonies = Testimonies::default();
        testimonies.keep(vec![said()], &[lent()], &[lent()], at(100));
        assert_eq!(testimonies.len(), 1);
        let mut later = [used];
        testimonies.join(&mut later, at(101));
        assert!(later[0].server.is_none(), "used after the answer");
        testimonies.keep(Vec::new(), &[], &[], at(102));
        assert_eq!(testimonies.len(), 0, "nothing is kept of who has ended");
    }

    #[test]
    fn a_backend_younger_than_the_checkout_is_another_one() {
        let young = Said {
            age: Some(SECOND * 8),
            ..said(ServerState::Idle)
        };
        assert!(joined(young, &lent(), &lent(), 101).server.is_none());
    }

    #[test]
    fn a_server_that_does_not_know_every_backend_is_another_one() {
        let other = Holder {
            id: HolderId(2),
            backend: Some(4712),
            ..lent()
        };
        let both = [lent(), other];
        let told = |said: Vec<Said>, after: &[Holder]| {
            let testimonies = Testimonies::default();
            testimonies.keep(said, &both, after, at(100));
            testimonies.len()
        };
        let idle = || said(ServerState::Idle);
        assert_eq!(told(vec![idle()], &both), 0);
        let all = Said {
            backend: 4712,
            ..idle()
        };
        assert_eq!(told(vec![idle(), all], &both), 2);
        assert_eq!(told(vec![idle()], &both[..1]), 1, "the other is back since");
    }

    /// The one with this backend, serving that.
    fn serving(id: u64, backend: i64, route: &str) -> Holder {
        Holder {
            id: HolderId(id),
            backend: Some(backend),
            scope: Some(ScopeInfo {
                route: route.to_string(),
                request_id: None,
            }),
            lent: false,
            activity: Activity::InFlight {
                since: SystemTime::UNIX_EPOCH,
            },
            ..lent()
        }
    }

    #[test]
    fn who_blocks_others_is_told_how_many_and_who_waits_what_has_become_of_it() {
        let testimonies = Testimonies::default();
        let culprit = serving(1, 4711, "POST /x");
        let holders = [
            culprit,
            serving(2, 4712, "GET /y"),
            serving(3, 4713, "GET /z"),
        ];
        let blocked = |backend, seconds| {
            let mut said = Said {
                backend,
                ..said(ServerState::InFlight)
            };
            said.testimony.state_for = SECOND * seconds;
            said.testimony.blocked_by = vec![Blocker::unknown(4711)];
            said
        };
        let answer = vec![
            said(ServerState::InFlight),
            blocked(4712, 2),
            blocked(4713, 3),
        ];
        testimonies.keep(answer, &holders, &holders, at(100));
        let mut now = holders.clone();
        testimonies.join(&mut now, at(100));
        let blocks = now[0].blocks.as_ref().expect("two wait for it");
        assert_eq!(
            blocks.to_string(),
            "2 holders of this pool, e.g. GET /z, taken at src/repo.rs:88:31, waiting for 3.0 s"
        );
        assert!(now[1].blocks.is_none());
        let blocker = |holder: &Holder| {
            let said = holder.server.as_ref().expect("it was told");
            said.blocked_by[0].to_string()
        };
        assert_eq!(
            blocker(&now[1]),
            "POST /x, taken at src/repo.rs:88:31, pid 4711"
        );
        // Its client has left since.
        let mut later = holders.clone();
        later[0].phase = Phase::Returning;
        later[0].cut = Some(Cut::Statement);
        testimonies.join(&mut later, at(101));
        assert_eq!(
            blocker(&later[1]),
            "POST /x, taken at src/repo.rs:88:31, pid 4711; its request was cut while in a \
             statement; on its way back to the pool"
        );
        // The word is old, and the others may have gone on.
        let mut late = holders.clone();
        testimonies.join(&mut late, at(120));
        assert!(late[0].blocks.is_none());
    }

    #[test]
    fn two_holders_with_one_backend_share_it() {
        let other = Holder {
            id: HolderId(2),
            ..lent()
        };
        assert!(share_a_backend(&[&lent(), &other]));
        let other = Holder {
            backend: Some(4712),
            ..other
        };
        assert!(!share_a_backend(&[&lent(), &other]));
    }
}
