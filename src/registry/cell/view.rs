//! The copy of a live checkout.
//!
//! Responsible for turning what is kept into what readers get. Not responsible for keeping it.

use std::time::Duration;

use super::{Cell, Doing};
use crate::clock::{Moment, Stops};
use crate::registry::holder::{Activity, Holder, HolderId, Phase, ScopeInfo};
use crate::registry::snapshot::Limits;
use crate::scope::Scope;
use crate::site::{Location, text};
use crate::sync::atomic::Ordering;

impl Cell {
    /// The copy that readers get.
    pub(crate) fn view(&self, now: Moment, limits: &Limits, stops: &Stops) -> Holder {
        let threshold = self
            .policy
            .threshold
            .unwrap_or_else(|| limits.threshold.for_pool(self.pool.acquire_timeout()));
        let live = self.live.lock();
        let until = live.released_at.unwrap_or(now);
        let running_for = stops.running_between(self.acquired_at, until);
        let since = live.since.wall();
        Holder {
            id: HolderId(self.id),
            pool: self.pool.name.clone(),
            kind: self.kind,
            label: self
                .policy
                .label
                .map(|label| text::escape_text(label, 100).into_owned()),
            acquired_at: self.acquired_at.wall(),
            held_for: until.since(self.acquired_at),
            waited_for: self.waited,
            acquired_by: self.acquired_by.map(Location::from),
            stack: self.stack.clone(),
            last_used_at: live.last_used_at.map(Moment::wall),
            last_used_by: live.last_used_by.map(Location::from),
            last_sql: live.last_sql.as_ref().map(|sql| sql.masked.to_string()),
            uses: live.uses,
            activity: match live.doing {
                Doing::InFlight => Activity::InFlight { since },
                Doing::Idle => Activity::Idle { since },
                Doing::Unknown => Activity::Unknown { since },
            },
            activity_for: until.since(live.since),
            in_transaction: live.in_transaction,
            backend: match self.backend.load(Ordering::Relaxed) {
                0 => None,
                backend => Some(backend),
            },
            server: None,
            phase: live.phase,
            returning_for: live
                .released_at
                .filter(|_| live.phase == Phase::Returning)
                .map(|since| now.since(since)),
            scope: self.scope.as_ref().map(ScopeInfo::of),
            cut: live.cut,
            task_id: self.task.map(|task| task.to_string()),
            span: self.span,
            overdue: live.phase == Phase::Held && running_for > threshold,
            threshold,
            unreported: self.policy.unreported,
            lent: live.doing == Doing::Unknown,
            seen_since: since,
            parked: live.parked,
            rows: live.rows,
            running_for,
            activity_running_for: stops.running_between(live.since, until),
            pool_id: self.pool.id,
            idle_limit: limits.idle_in_transaction.map(|limit| limit.min(threshold)),
            scope_ended_for: self
                .scope
                .as_ref()
                .and_then(Scope::ended)
                // Taken later, by a task that carries the scope on, it is no remainder of it.
                .filter(|(ended, _)| *ended >= self.acquired_at)
                .map(|(ended, _)| stops.running_between(ended, until)),
            grace: self
                .scope
                .as_ref()
                .and_then(Scope::grace)
                .unwrap_or(limits.grace),
            owner: Some(self.owner),
            polled_ago: self
                .scope
                .as_ref()
                .and_then(|scope| match scope.in_poll_since() {
                    Some(_) => Some(Duration::ZERO),
                    None => scope.last_polled().map(|ended| now.since(ended)),
                }),
        }
    }
}
