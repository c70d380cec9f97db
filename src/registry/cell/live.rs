//! The facts of the checkout that a cell is out for.
//!
//! Responsible for keeping them and for what is left of them at the end. Not responsible for the
//! lock around them, or for who changes what: see `cell`.

use std::sync::Arc;
use std::time::Duration;

use super::{Ended, Use};
use crate::clock::Moment;
use crate::registry::doubts::Doubts;
use crate::registry::holder::{Cut, HolderId, HolderKind, Owner, Phase, SpanInfo};
use crate::registry::pool::Policy;
use crate::registry::returns::Walk;
use crate::scope::Scope;
use crate::site::{CallSite, SqlText, Stack};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    InFlight,
    Idle,
    Unknown,
}

/// The checkout that a cell is out for. Between two of them it keeps nothing that belongs to users.
#[derive(Clone)]
pub(in crate::registry) struct Live {
    /// Names the checkout; zero while the cell is free.
    pub(in crate::registry) id: u64,
    /// Shown to readers; `false` at detail `off`.
    pub(super) listed: bool,
    pub(super) kind: HolderKind,
    pub(super) policy: Policy,
    pub(super) acquired_at: Moment,
    pub(super) waited: Duration,
    pub(super) acquired_by: Option<CallSite>,
    pub(super) stack: Option<Stack>,
    pub(super) scope: Option<Scope>,
    pub(super) task: Option<tokio::task::Id>,
    pub(super) owner: Owner,
    pub(super) span: Option<SpanInfo>,
    /// Where the guard was last borrowed mutably; becomes `last_used_by` when a use follows.
    pub(super) borrowed_by: Option<CallSite>,
    pub(super) last_used_at: Option<Moment>,
    pub(super) last_used_by: Option<CallSite>,
    pub(super) last_sql: Option<Arc<SqlText>>,
    pub(super) uses: u32,
    /// How many rows were handed over: a stream that is read is not stuck.
    pub(super) rows: u64,
    pub(super) doing: Doing,
    /// What the guard itself does on the connection, beside the user's statements.
    pub(super) own: Option<Use>,
    pub(super) since: Moment,
    pub(super) parked: bool,
    pub(super) in_transaction: bool,
    pub(in crate::registry) phase: Phase,
    pub(super) doubts: Doubts,
    /// The finding that speaks of this holder.
    pub(super) claimed: Option<u64>,
    pub(super) released_at: Option<Moment>,
    /// Its request was cut, and this is in what.
    pub(super) cut: Option<Cut>,
    /// Its way back, while it is on it.
    pub(in crate::registry) walk: Option<Walk>,
}

impl Live {
    pub(super) fn free() -> Self {
        Self {
            id: 0,
            listed: false,
            kind: HolderKind::Connection,
            policy: Policy::default(),
            acquired_at: Moment::FIRST,
            waited: Duration::ZERO,
            acquired_by: None,
            stack: None,
            scope: None,
            task: None,
            owner: Owner::Thread(u64::MAX),
            span: None,
            borrowed_by: None,
            last_used_at: None,
            last_used_by: None,
            last_sql: None,
            uses: 0,
            rows: 0,
            doing: Doing::Idle,
            own: None,
            since: Moment::FIRST,
            parked: false,
            in_transaction: false,
            phase: Phase::Held,
            doubts: Doubts::default(),
            claimed: None,
            released_at: None,
            cut: None,
            walk: None,
        }
    }
}

/// What is left of a checkout that is over.
pub(in crate::registry) struct Finished {
    pub(in crate::registry) kind: HolderKind,
    pub(in crate::registry) label: Option<&'static str>,
    pub(in crate::registry) acquired_by: Option<CallSite>,
    pub(in crate::registry) held_for: Duration,
    pub(in crate::registry) after_last_use: Duration,
    pub(in crate::registry) last_used_by: Option<CallSite>,
    pub(in crate::registry) last_sql: Option<Arc<SqlText>>,
    pub(in crate::registry) released_at: Moment,
    /// This and the stack are dropped by whoever drops this, outside of the cell's lock.
    pub(in crate::registry) scope: Option<Scope>,
    _stack: Option<Stack>,
}

impl Live {
    pub(super) fn enter(&mut self, doing: Doing, now: Moment) {
        self.doing = doing;
        self.own = None;
        self.since = now;
    }

    pub(super) fn account(self) -> Finished {
        let released_at = self.released_at.unwrap_or(self.acquired_at);
        let last_use = self.last_used_at.unwrap_or(self.acquired_at);
        Finished {
            kind: self.kind,
            label: self.policy.label,
            acquired_by: self.acquired_by,
            held_for: released_at.since(self.acquired_at),
            after_last_use: released_at.since(last_use),
            last_used_by: self.last_used_by,
            last_sql: self.last_sql,
            released_at,
            scope: self.scope,
            _stack: self.stack,
        }
    }

    pub(super) fn ended(&self, finding: u64) -> Ended {
        let until = self.released_at.unwrap_or_else(Moment::now);
        Ended {
            finding,
            holder: HolderId(self.id),
            held_for: until.since(self.acquired_at),
            cut: self.cut,
        }
    }
}
