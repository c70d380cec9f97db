//! What is kept of a checkout while it lives.
//!
//! Responsible for following one checkout from its grant to its release: what was seen of it, and
//! what the way back has to know. Not responsible for when it begins and ends (`lease`), nor for
//! which cell it gets (`slots`): a cell is used again, so whoever keeps one longer than its lease
//! asks by id.

mod live;
mod view;

use std::sync::Arc;
use std::time::Duration;

use futures_util::task::AtomicWaker;

pub(super) use self::live::Finished;
use self::live::{Doing, Live};
pub(crate) use self::view::Seen;
use super::doubts::Doubts;
use super::holder::{Cut, HolderId, HolderKind, Owner, Phase, SpanInfo};
use super::pool::{Policy, PoolRecord};
use super::returns::Walk;
use crate::clock::Moment;
use crate::scope::Scope;
use crate::site::{CallSite, SqlText, Stack, sql::Verb};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// What is kept of one checkout after the other, while they live.
pub(crate) struct Cell {
    pub(crate) pool: Arc<PoolRecord>,
    pub(super) live: Mutex<Live>,
    /// The server's name of the connection's backend; zero where it was not learned.
    backend: AtomicI64,
    /// A nested begin was cut or refused, and rolled the outer transaction back: whatever runs now
    /// would run in autocommit. Here, because a begin that is in flight has lent everything else.
    doomed: AtomicBool,
    /// The way back, when it waits for an answer, or may be given up.
    pub(super) walk: AtomicWaker,
}

/// What is known when a checkout begins.
pub(crate) struct Begun {
    pub(crate) kind: HolderKind,
    pub(crate) policy: Policy,
    pub(crate) waited: Duration,
    pub(crate) acquired_by: Option<CallSite>,
    pub(crate) stack: Option<Stack>,
    pub(crate) scope: Option<Scope>,
    pub(crate) task: Option<tokio::task::Id>,
    pub(crate) span: Option<SpanInfo>,
}

#[cfg(test)]
impl Begun {
    /// A connection of which nothing else is known.
    pub(super) fn bare() -> Self {
        Self {
            kind: HolderKind::Connection,
            policy: Policy::default(),
            waited: Duration::ZERO,
            acquired_by: None,
            stack: None,
            scope: None,
            task: None,
            span: None,
        }
    }
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
    /// A cell that is free.
    pub(super) fn new(pool: &Arc<PoolRecord>) -> Self {
        Self {
            pool: Arc::clone(pool),
            live: Mutex::new(Live::free()),
            backend: AtomicI64::new(0),
            doomed: AtomicBool::new(false),
            walk: AtomicWaker::new(),
        }
    }

    /// A checkout begins. The caller has the cell for itself, so the lock is free but for readers.
    pub(super) fn begin(&self, id: u64, now: Moment, begun: Begun, listed: bool) {
        let owner = Owner::of(begun.scope.as_ref(), begun.task);
        let mut live = self.live.lock();
        // What is not set here was reset when the last checkout ended.
        live.id = id;
        live.listed = listed;
        live.kind = begun.kind;
        live.policy = begun.policy;
        live.acquired_at = now;
        live.since = now;
        live.waited = begun.waited;
        live.acquired_by = begun.acquired_by;
        live.stack = begun.stack;
        live.scope = begun.scope;
        live.task = begun.task;
        live.owner = owner;
        live.span = begun.span;
    }

    /// The checkout is over: the cell is free again. Answers what there is to account for, and
    /// what was kept of it, for the caller to drop outside of the lock.
    pub(super) fn finish(&self) -> Option<Finished> {
        let mut live = self.live.lock();
        if live.id == 0 {
            return None;
        }
        let over = std::mem::replace(&mut *live, Live::free());
        drop(live);
        self.backend.store(0, Ordering::Relaxed);
        self.doomed.store(false, Ordering::Relaxed);
        drop(self.walk.take());
        Some(over.account())
    }

    /// The same of a checkout that is on its way back, and counts already.
    pub(super) fn account(&self) -> Option<Finished> {
        let live = Some(self.live.lock())
            .filter(|live| live.phase == Phase::Returning)
            .map(|live| live.clone())?;
        Some(live.account())
    }

    pub(crate) fn id(&self) -> HolderId {
        HolderId(self.live.lock().id)
    }

    /// The request or job that it serves.
    pub(crate) fn scope(&self) -> Option<Scope> {
        self.live.lock().scope.clone()
    }

    pub(crate) fn backend(&self) -> Option<i64> {
        match self.backend.load(Ordering::Relaxed) {
            0 => None,
            backend => Some(backend),
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
    pub(super) fn cut(&self, scope: u64) -> Option<Cut> {
        let mut live = self.live.lock();
        let is_its = live.scope.as_ref().is_some_and(|own| own.id() == scope);
        if !is_its || !live.listed || live.phase != Phase::Held {
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

    /// Attaches a finding to this holder. `None`: the cell is out for another one, or free.
    /// `Err`: it has already come back.
    pub(super) fn claim(&self, holder: HolderId, finding: u64) -> Option<Result<(), Ended>> {
        let mut live = self.live.lock();
        if live.id != holder.0 {
            return None;
        }
        live.claimed = Some(finding);
        Some(match live.phase {
            Phase::Held | Phase::LeakedOnPurpose => Ok(()),
            Phase::Returning => Err(live.ended(finding)),
        })
    }

    /// Its permit never comes back, on purpose.
    pub(super) fn leak(&self) {
        self.live.lock().phase = Phase::LeakedOnPurpose;
    }

    /// Whether a transaction is open, as far as statements were seen: a loan of the raw connection and
    /// a script are not.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.live.lock().in_transaction
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

    /// Ends the hold time. `walks`: the way back begins, which has a limit. Answers whether it was
    /// listed, and the finding that spoke of it; `None` when it had been released before.
    pub(super) fn release(&self, walks: bool) -> Option<(bool, Option<Ended>)> {
        let now = Moment::now();
        let mut live = self.live.lock();
        if live.phase != Phase::Held {
            return None;
        }
        live.phase = Phase::Returning;
        live.released_at = Some(now);
        live.walk = walks.then_some(Walk::new(now));
        let ended = live.claimed.map(|finding| live.ended(finding));
        Some((live.listed, ended))
    }
}
