//! The copy of a live checkout.
//!
//! Responsible for turning what is kept into what readers get. Not responsible for keeping it.

use std::time::Duration;

use super::{Cell, Doing, Live};
use crate::clock::{Moment, Stops};
use crate::registry::holder::{Activity, Holder, HolderId, Phase, ScopeInfo};
use crate::registry::snapshot::Limits;
use crate::scope::Scope;
use crate::site::{Location, text};

/// What was kept of a holder at one moment.
pub(crate) struct Seen(Live);

impl Cell {
    /// The copy that readers get, of the checkout that this cell is out for now.
    pub(crate) fn view(&self, now: Moment, limits: &Limits, stops: &Stops) -> Holder {
        let live = self.live.lock().clone();
        self.copy(live, now, limits, stops)
    }

    /// What is kept of this holder now, to be shown when it may be gone.
    pub(in crate::registry) fn seen(&self, holder: HolderId) -> Option<Seen> {
        Some(self.live.lock())
            .filter(|live| live.id == holder.0)
            .map(|live| Seen(live.clone()))
    }

    /// Shows it.
    pub(crate) fn view_as(
        &self,
        seen: &Seen,
        now: Moment,
        limits: &Limits,
        stops: &Stops,
    ) -> Holder {
        self.copy(seen.0.clone(), now, limits, stops)
    }

    /// The same, if it is out and shown.
    pub(in crate::registry) fn listed(
        &self,
        now: Moment,
        limits: &Limits,
        stops: &Stops,
    ) -> Option<Holder> {
        let live = Some(self.live.lock())
            .filter(|live| live.id != 0 && live.listed)
            .map(|live| live.clone())?;
        Some(self.copy(live, now, limits, stops))
    }

    /// Works on a copy: nothing is formatted or allocated under the lock.
    fn copy(&self, live: Live, now: Moment, limits: &Limits, stops: &Stops) -> Holder {
        let threshold = live
            .policy
            .threshold
            .unwrap_or_else(|| limits.threshold.for_pool(self.pool.acquire_timeout()));
        let until = live.released_at.unwrap_or(now);
        let running_for = stops.running_between(live.acquired_at, until);
        let since = live.since.wall();
        let in_poll_since = live.scope.as_ref().and_then(Scope::in_poll_since);
        let last_polled = live.scope.as_ref().and_then(Scope::last_polled);
        Holder {
            id: HolderId(live.id),
            pool: self.pool.name.clone(),
            kind: live.kind,
            label: live
                .policy
                .label
                .map(|label| text::escape_text(label, 100).into_owned()),
            acquired_at: live.acquired_at.wall(),
            held_for: until.since(live.acquired_at),
            waited_for: live.waited,
            acquired_by: live.acquired_by.map(Location::from),
            stack: live.stack,
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
            backend: self.backend(),
            server: None,
            blocks: None,
            phase: live.phase,
            returning_for: live
                .released_at
                .filter(|_| live.phase == Phase::Returning)
                .map(|since| now.since(since)),
            scope: live.scope.as_ref().map(ScopeInfo::of),
            cut: live.cut,
            task_id: live.task.map(|task| task.to_string()),
            span: live.span,
            overdue: live.phase == Phase::Held && running_for > threshold,
            threshold,
            unreported: live.policy.unreported,
            lent: live.doing == Doing::Unknown,
            seen_since: since,
            parked: live.parked,
            rows: live.rows,
            running_for,
            activity_running_for: stops.running_between(live.since, until),
            pool_id: self.pool.id,
            idle_limit: limits.idle_in_transaction.map(|limit| limit.min(threshold)),
            scope_ended_for: live
                .scope
                .as_ref()
                .and_then(Scope::ended)
                // Taken later, by a task that carries the scope on, it is no remainder of it.
                .filter(|(ended, _)| *ended >= live.acquired_at)
                .map(|(ended, _)| stops.running_between(ended, until)),
            grace: live
                .scope
                .as_ref()
                .and_then(Scope::grace)
                .unwrap_or(limits.grace),
            owner: Some(live.owner),
            polled_ago: match in_poll_since {
                Some(_) => Some(Duration::ZERO),
                None => last_polled.map(|began| now.since(began)),
            },
            in_poll_for: in_poll_since.map(|since| stops.running_between(since, now)),
        }
    }
}
