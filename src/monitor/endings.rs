//! What is said about how a connection came back.
//!
//! Responsible for `dirty_return`, `lost_writes`, `commit_unknown` and `stuck_return`, and for the
//! writes that are lost only if their request then succeeds. Not responsible for finding any of it:
//! the pool's way back does that.

use std::sync::Arc;

use super::Monitor;
use crate::clock::{Moment, span};
use crate::config::Detail;
use crate::finding::{Finding, Kind};
use crate::registry::{Cell, Done, Holder, PoolRecord, Rollback, Stuck};
use crate::report::headline;
use crate::scope::Scope;

/// Writes that were dropped without a commit, in a request that is still under way.
pub(super) struct Suspect {
    scope: Scope,
    pool: Arc<PoolRecord>,
    holder: Holder,
}

/// More suspects than this are not kept: their requests would have to be many and endless.
const SUSPECTS: usize = 1000;

impl Monitor {
    /// A copy of what is known of this checkout now.
    fn holder(&self, cell: &Cell) -> Holder {
        let stops = self.0.stops.lock().clone();
        cell.view(Moment::now(), &self.limits(), &stops)
    }

    /// Says that something went wrong with this checkout. `what` is the half sentence after the
    /// headline.
    pub(crate) fn ended_badly(&self, cell: &Cell, kind: Kind, what: &str, remedy: Option<&str>) {
        if self.detail() != Detail::Off {
            self.said_of(&cell.pool, self.holder(cell), kind, what, remedy);
        }
    }

    fn said_of(
        &self,
        pool: &PoolRecord,
        holder: Holder,
        kind: Kind,
        what: &str,
        remedy: Option<&str>,
    ) {
        let now = Moment::now();
        let interval = self.0.config.get_report_interval();
        let told = self.0.door.lock().event(&holder, kind, interval, now);
        let Some((id, count)) = told else {
            return;
        };
        let info = pool.info(now);
        let headline = format!("{}: {what}", headline(kind, &pool.name, &holder, count));
        self.0.reporter.say(Finding {
            remedy: remedy.map(str::to_string),
            first_seen: holder.acquired_at,
            holders: vec![holder],
            count,
            ..Finding::new(id, kind, &info, headline)
        });
    }

    /// Says that a connection of which no holder is known came back inside of a transaction.
    pub(crate) fn dirty_without_holder(&self, pool: &PoolRecord) {
        pool.tallies.rolled_back(Rollback::Unseen);
        if self.detail() == Detail::Off {
            return;
        }
        let now = Moment::now();
        let info = pool.info(now);
        let raw: Vec<_> = info
            .raw_handed_out
            .iter()
            .map(ToString::to_string)
            .collect();
        let from = match raw.is_empty() {
            true => String::new(),
            false => format!("; raw pool handed out at {}", raw.join(", ")),
        };
        let headline = format!(
            "pool \"{}\": a connection of the raw pool came back inside of a transaction; it was rolled back{from}",
            info.name
        );
        let id = self.0.door.lock().new_id();
        self.0.reporter.say(Finding {
            count: 1,
            ..Finding::new(id, Kind::DirtyReturn, &info, headline)
        });
    }

    /// Writes of this checkout were rolled back without anybody asking for it. Whether they are
    /// lost depends on what its request answers.
    pub(crate) fn dropped_writes(&self, cell: &Cell) {
        let Some(scope) = cell.scope().filter(Scope::is_of_request) else {
            return;
        };
        if self.detail() == Detail::Off {
            return;
        }
        let suspect = Suspect {
            scope,
            pool: Arc::clone(&cell.pool),
            holder: self.holder(cell),
        };
        let mut suspects = self.0.suspects.lock();
        if suspects.len() < SUSPECTS {
            suspects.push(suspect);
        }
        drop(suspects);
        self.0.watchdog.wake_now();
    }

    /// Whether a request has to end before something can be said.
    pub(super) fn has_suspects(&self) -> bool {
        !self.0.suspects.lock().is_empty()
    }

    /// Says of those whose request has ended what its answer makes of them.
    pub(super) fn scan_suspects(&self) {
        let mut ended = Vec::new();
        self.0.suspects.lock().retain_mut(|suspect| {
            let over = suspect.scope.ended().is_some();
            if over {
                ended.push((
                    suspect.scope.success(),
                    Arc::clone(&suspect.pool),
                    suspect.holder.clone(),
                ));
            }
            !over
        });
        for (success, pool, holder) in ended {
            if success == Some(true) {
                self.said_of(
                    &pool,
                    holder,
                    Kind::LostWrites,
                    "dropped without commit, and its request answered success",
                    Some("commit before the answer; where the rollback is meant, say so with discard()"),
                );
            }
        }
    }

    /// Acts on returns that are beyond their limit. Answers when to look again.
    pub(super) fn scan_returns(&self, now: Moment) -> Option<std::time::Duration> {
        let mut next: Option<std::time::Duration> = None;
        for pool in self.0.registry.slots() {
            let (stuck, wait) = pool.look_at_returns(now);
            for stuck in stuck {
                self.stuck(&stuck, now);
            }
            // One that begins right after this look is due no sooner than this.
            for wait in wait.into_iter().chain([pool.record().returns.limit()]) {
                next = Some(next.map_or(wait, |next| next.min(wait)));
            }
        }
        next
    }

    fn stuck(&self, stuck: &Stuck, now: Moment) {
        let what = match stuck.done {
            Done::ClosedUnreachable => "the server does not answer; closed",
            Done::ClosedIdle => "the server has nothing running for it; closed",
            Done::Cancelled => {
                "its statement still ran on the server and was cancelled there; its place is kept until that has an effect"
            }
            Done::Kept => {
                "whether a statement of it still runs on the server is not known; its place is kept for a minute"
            }
            Done::Orphaned => "closed after a minute; its statement may still run on the server",
        };
        let what = format!("on its way for {}, {what}", span(now.since(stuck.since)));
        if self.detail() == Detail::Off {
            return;
        }
        let stops = self.0.stops.lock().clone();
        let holder = stuck.cell.view_as(&stuck.seen, now, &self.limits(), &stops);
        self.said_of(&stuck.cell.pool, holder, Kind::StuckReturn, &what, None);
    }
}
