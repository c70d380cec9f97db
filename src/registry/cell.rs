//! What is kept of a checkout while it lives.
//!
//! Responsible for following one checkout from its grant to its release: what was seen of it, and
//! what the way back has to know. Not responsible for when it begins and ends (`lease`).

mod view;

use std::sync::Arc;
use std::time::Duration;

use super::doubts::Doubts;
use super::holder::{Cut, HolderId, HolderKind, Owner, Phase, SpanInfo};
use super::pool::{Policy, PoolRecord};
use crate::clock::Moment;
use crate::scope::Scope;
use crate::site::{CallSite, SqlText, Stack, sql::Verb};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// What is kept of a checkout while it lives.
///
/// The fields outside of `live` never change.
pub(crate) struct Cell {
    pub(super) id: u64,
    pub(crate) pool: Arc<PoolRecord>,
    pub(super) kind: HolderKind,
    policy: Policy,
    acquired_at: Moment,
    waited: Duration,
    acquired_by: Option<CallSite>,
    stack: Option<Stack>,
    pub(crate) scope: Option<Scope>,
    task: Option<tokio::task::Id>,
    owner: Owner,
    span: Option<SpanInfo>,
    live: Mutex<Live>,
    /// The server's name of the connection's backend; zero where it was not learned.
    backend: AtomicI64,
    /// A nested begin was cut or refused, and rolled the outer transaction back: whatever runs now
    /// would run in autocommit. Here, because a begin that is in flight has lent everything else.
    doomed: AtomicBool,
}

/// What is known when a checkout begins.
pub(crate) struct Begun {
    pub(crate) pool: Arc<PoolRecord>,
    pub(crate) kind: HolderKind,
    pub(crate) policy: Policy,
    pub(crate) waited: Duration,
    pub(crate) acquired_by: Option<CallSite>,
    pub(crate) stack: Option<Stack>,
    pub(crate) scope: Option<Scope>,
    pub(crate) task: Option<tokio::task::Id>,
    pub(crate) span: Option<SpanInfo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    InFlight,
    Idle,
    Unknown,
}

struct Live {
    /// Where the guard was last borrowed mutably; becomes `last_used_by` when a use follows.
    borrowed_by: Option<CallSite>,
    last_used_at: Option<Moment>,
    last_used_by: Option<CallSite>,
    last_sql: Option<Arc<SqlText>>,
    uses: u32,
    /// How many rows were handed over: a stream that is read is not stuck.
    rows: u64,
    doing: Doing,
    /// What the guard itself does on the connection, beside the user's statements.
    own: Option<Use>,
    since: Moment,
    parked: bool,
    in_transaction: bool,
    phase: Phase,
    doubts: Doubts,
    /// The finding that speaks of this holder.
    claimed: Option<u64>,
    released_at: Option<Moment>,
    /// Its request was cut, and this is in what.
    cut: Option<Cut>,
    done: bool,
}

/// How a statement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Succeeded,
    Failed,
    /// Failed in a way after which the connection cannot be used.
    Broken,
    /// Dropped before its end was seen.
    Cut,
}

/// A use that a guard makes by itself, beside the user's statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Begin,
    Commit,
    Rollback,
}

/// A reported holder that has come back.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) finding: u64,
    pub(crate) holder: HolderId,
    pub(crate) held_for: Duration,
    /// In what it was when its request was cut, if it was.
    pub(crate) cut: Option<Cut>,
}

impl Cell {
    pub(super) fn new(id: u64, now: Moment, begun: Begun) -> Self {
        let Begun {
            pool,
            kind,
            policy,
            waited,
            acquired_by,
            stack,
            scope,
            task,
            span,
        } = begun;
        let owner = Owner::current(scope.as_ref());
        Self {
            id,
            pool,
            kind,
            policy,
            acquired_at: now,
            waited,
            acquired_by,
            stack,
            scope,
            task,
            owner,
            span,
            backend: AtomicI64::new(0),
            doomed: AtomicBool::new(false),
            live: Mutex::new(Live {
                borrowed_by: None,
                last_used_at: None,
                last_used_by: None,
                last_sql: None,
                uses: 0,
                rows: 0,
                doing: Doing::Idle,
                own: None,
                since: now,
                parked: false,
                in_transaction: false,
                phase: Phase::Held,
                doubts: Doubts::default(),
                claimed: None,
                released_at: None,
                cut: None,
                done: false,
            }),
        }
    }

    /// The guard was borrowed mutably: if a statement follows, it came from here.
    pub(crate) fn borrowed(&self, by: CallSite) {
        self.live.lock().borrowed_by = Some(by);
    }

    /// Where the guard was borrowed for the use that follows.
    pub(crate) fn borrower(&self) -> Option<CallSite> {
        self.live.lock().borrowed_by
    }

    /// The raw connection was lent out: nothing is seen from here on.
    pub(crate) fn lent(&self, by: CallSite) {
        let now = Moment::now();
        let mut live = self.live.lock();
        live.borrowed_by = None;
        live.last_used_by = Some(by);
        live.last_used_at = Some(now);
        live.last_sql = None;
        live.uses = live.uses.saturating_add(1);
        live.doubts.lent();
        live.enter(Doing::Unknown, now);
    }

    /// The text of the statement that is about to run.
    pub(crate) fn told(&self, sql: Arc<SqlText>) {
        let mut live = self.live.lock();
        live.doubts.told(&sql);
        live.last_sql = Some(sql);
    }

    /// A statement was sent.
    pub(crate) fn started(&self) {
        let now = Moment::now();
        let mut live = self.live.lock();
        live.last_used_by = live.borrowed_by.take();
        live.last_used_at = Some(now);
        live.uses = live.uses.saturating_add(1);
        live.parked = false;
        live.enter(Doing::InFlight, now);
    }

    /// A row was handed over (`true`), or the next one was asked for.
    pub(crate) fn parked(&self, parked: bool) {
        let mut live = self.live.lock();
        live.parked = parked;
        live.rows += u64::from(parked);
    }

    /// The statement ended.
    pub(crate) fn ended_statement(&self, ending: Ending) {
        let now = Moment::now();
        let mut live = self.live.lock();
        live.parked = false;
        live.last_used_at = Some(now);
        live.doubts.ended(ending);
        if ending != Ending::Cut && std::mem::take(&mut live.doubts.rollback_queued) {
            // It was sent before the statement, so the server has done it.
            live.in_transaction = false;
        }
        if ending == Ending::Succeeded {
            match live.last_sql.as_ref().map(|sql| sql.verb) {
                Some(Verb::Begin) => live.in_transaction = true,
                Some(Verb::Commit | Verb::Rollback) => live.in_transaction = false,
                _ => {}
            }
        }
        live.enter(Doing::Idle, now);
    }

    /// The guard begins to begin, commit or roll back. Until [`Cell::did`], the server's state is
    /// not known.
    pub(crate) fn doing(&self, what: Use) {
        let now = Moment::now();
        let mut live = self.live.lock();
        live.doubts.unsure = true;
        if let Some(by) = live.borrowed_by.take() {
            live.last_used_by = Some(by);
        }
        live.enter(Doing::InFlight, now);
        live.own = Some(what);
    }

    /// Its request is cut now: notes in what, and answers it.
    pub(super) fn cut(&self) -> Option<Cut> {
        let mut live = self.live.lock();
        if live.phase != Phase::Held {
            return None;
        }
        live.cut = Some(match (live.doing, live.own) {
            (_, Some(Use::Begin)) => Cut::Begin,
            (_, Some(Use::Commit)) => Cut::Commit,
            (_, Some(Use::Rollback)) => Cut::Rollback,
            (Doing::InFlight, None) => Cut::Statement,
            (Doing::Idle, None) => Cut::Idle,
            (Doing::Unknown, None) => Cut::Lent,
        });
        live.cut
    }

    /// What [`Cell::doing`] announced has ended. `open`: how many levels are open now.
    pub(crate) fn did(&self, what: Use, ending: Ending, open: usize) {
        let now = Moment::now();
        let mut live = self.live.lock();
        match ending {
            // Only queued: on the server the transaction is open until the next statement.
            Ending::Cut => live.doubts.rollback_queued |= open == 0 && live.in_transaction,
            Ending::Succeeded | Ending::Failed | Ending::Broken => {
                live.in_transaction = open > 0;
            }
        }
        if ending == Ending::Succeeded {
            live.doubts.settled(what, open);
        }
        live.enter(Doing::Idle, now);
    }

    /// Something of the guard's own was dropped in flight: the server has to be asked.
    pub(crate) fn unsure(&self) {
        self.live.lock().doubts.was_cut();
    }

    /// What the way back has to settle.
    pub(crate) fn doubts(&self) -> Doubts {
        let live = self.live.lock();
        let mut doubts = live.doubts;
        if live.doing == Doing::InFlight {
            doubts.was_cut();
        }
        doubts
    }

    /// Attaches a finding; false when the holder has already come back.
    pub(super) fn claim(&self, finding: u64) -> bool {
        let mut live = self.live.lock();
        live.claimed = Some(finding);
        live.phase == Phase::Held || live.phase == Phase::LeakedOnPurpose
    }

    pub(super) fn ended(&self, finding: u64) -> Ended {
        let live = self.live.lock();
        let until = live.released_at.unwrap_or_else(Moment::now);
        Ended {
            finding,
            holder: HolderId(self.id),
            held_for: until.since(self.acquired_at),
            cut: live.cut,
        }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.live.lock().phase = phase;
    }

    /// The backend of the connection was learned when it was acquired.
    pub(crate) fn on_backend(&self, backend: i64) {
        self.backend.store(backend, Ordering::Relaxed);
    }

    pub(crate) fn doom(&self, doomed: bool) {
        self.doomed.store(doomed, Ordering::Release);
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Acquire)
    }

    /// The statement that runs is prepared on the server.
    pub(crate) fn prepared(&self) {
        self.live.lock().doubts.prepared = true;
    }

    /// The statement that runs has changed rows.
    pub(crate) fn changed_rows(&self) {
        let mut live = self.live.lock();
        let reads = live.last_sql.as_ref().is_none_or(|sql| sql.only_reads());
        live.doubts.wrote |= !reads;
    }

    /// Ends the hold time. Answers what the totals need, and the finding that spoke of it; `None`
    /// when it had been released before.
    pub(super) fn release(&self) -> Option<Released> {
        let now = Moment::now();
        let mut live = self.live.lock();
        if live.phase != Phase::Held {
            return None;
        }
        live.phase = Phase::Returning;
        live.released_at = Some(now);
        let last_use = live.last_used_at.unwrap_or(self.acquired_at);
        Some(Released {
            held_for: now.since(self.acquired_at),
            after_last_use: now.since(last_use),
            last_used_by: live.last_used_by,
            last_sql: live.last_sql.clone(),
            finding: live.claimed,
            now,
        })
    }

    /// True once: the record ends.
    pub(super) fn finish(&self) -> bool {
        !std::mem::replace(&mut self.live.lock().done, true)
    }

    pub(super) fn phase(&self) -> Phase {
        self.live.lock().phase
    }

    pub(super) fn site(&self) -> (HolderKind, Option<CallSite>, Option<&'static str>) {
        (self.kind, self.acquired_by, self.policy.label)
    }
}

/// What the totals need of a checkout that was released.
pub(super) struct Released {
    pub(super) held_for: Duration,
    pub(super) after_last_use: Duration,
    pub(super) last_used_by: Option<CallSite>,
    pub(super) last_sql: Option<Arc<SqlText>>,
    pub(super) finding: Option<u64>,
    pub(super) now: Moment,
}

impl Live {
    fn enter(&mut self, doing: Doing, now: Moment) {
        self.doing = doing;
        self.own = None;
        self.since = now;
    }
}
