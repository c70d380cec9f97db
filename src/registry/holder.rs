//! The copy of a checkout that readers get.
//!
//! Responsible for the words of the contract about holders. Not responsible for what is kept while
//! one lives: see `cell`.

use std::fmt;
// A static, which loom's atomics cannot be.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::locks::Blocks;
use super::testimony::Testimony;
use crate::scope::Scope;
use crate::site::{Location, Stack, text};

/// Names one checkout within its monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct HolderId(pub(crate) u64);

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What was checked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "json",
    derive(serde::Serialize),
    serde(rename_all = "lowercase")
)]
pub enum HolderKind {
    /// A connection, by `acquire`.
    Connection,
    /// A transaction, by `begin`.
    Transaction,
    /// A statement on the pool itself, as long as its stream lives.
    Statement,
}

impl fmt::Display for HolderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HolderKind::Connection => "Connection",
            HolderKind::Transaction => "Transaction",
            HolderKind::Statement => "Statement",
        })
    }
}

/// What is known of the connection that a holder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// A statement runs, or its rows have not all been read.
    InFlight {
        /// When it was sent.
        since: SystemTime,
    },
    /// No statement runs, for certain.
    Idle {
        /// When the last one ended, or when it was checked out.
        since: SystemTime,
    },
    /// Lent out as a raw connection: what runs there is not seen.
    Unknown {
        /// When it was lent.
        since: SystemTime,
    },
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Activity::InFlight { .. } => "in_flight",
            Activity::Idle { .. } => "idle",
            Activity::Unknown { .. } => "unknown",
        })
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for Activity {
    /// The word alone: how long it has been so stands beside it, as `activity_ms`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a checkout is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "json",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
pub enum Phase {
    /// Out.
    Held,
    /// Dropped; on its way back to the pool.
    Returning,
    /// Given away with `leak()`: its permit never comes back.
    LeakedOnPurpose,
}

/// In what a checkout was when its request was cut: its client went away, or a timeout ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "json",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Cut {
    /// No statement ran on it.
    Idle,
    /// `BEGIN` or `SAVEPOINT`.
    Begin,
    /// A statement ran, or its rows had not all been read.
    Statement,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// Lent as a raw connection: what ran there was not seen.
    Lent,
}

impl fmt::Display for Cut {
    /// The rest of the sentence "its request was cut …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cut::Idle => "while no statement ran",
            Cut::Begin => "while in BEGIN",
            Cut::Statement => "while in a statement",
            Cut::Commit => "while in COMMIT",
            Cut::Rollback => "while in ROLLBACK",
            Cut::Lent => "while lent as a raw connection",
        })
    }
}

/// The request or job that a holder serves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ScopeInfo {
    /// The route of the request, or the name of the job.
    pub route: String,
    /// The request id, when there was one.
    pub request_id: Option<String>,
}

impl ScopeInfo {
    /// A name is anything that a user may write, and is shown on one line.
    pub(super) fn of(scope: &Scope) -> Self {
        Self {
            route: text::escape_text(scope.name(), 200).into_owned(),
            request_id: scope
                .request_id()
                .map(|id| text::escape_text(id, 64).into_owned()),
        }
    }
}

/// The tracing span in which a checkout was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SpanInfo {
    /// Its name.
    pub name: &'static str,
    /// Its id.
    pub id: u64,
}

impl SpanInfo {
    /// The span that this thread is in. Through the dispatcher: `Span::current` takes a share of it.
    pub(crate) fn current() -> Option<Self> {
        tracing::dispatcher::get_default(|dispatch| {
            let span = dispatch.current_span();
            Some(Self {
                name: span.metadata()?.name(),
                id: span.id()?.into_u64(),
            })
        })
    }
}

/// Who has to go on for a checkout to end: its scope, else its task, else the thread that blocks on
/// a future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Owner {
    Scope(u64),
    Task(tokio::task::Id),
    Thread(u64),
}

impl Owner {
    /// Whoever runs here.
    pub(crate) fn current(scope: Option<&Scope>) -> Self {
        Self::of(scope, tokio::task::try_id())
    }

    /// Whoever runs here, in this task.
    pub(super) fn of(scope: Option<&Scope>, task: Option<tokio::task::Id>) -> Self {
        thread_local! {
            static THREAD: u64 = {
                static NEXT: AtomicU64 = AtomicU64::new(0);
                NEXT.fetch_add(1, Ordering::Relaxed)
            };
        }
        match (scope, task) {
            (Some(scope), _) => Owner::Scope(scope.id()),
            (None, Some(task)) => Owner::Task(task),
            // While the thread is being torn down its number is gone.
            (None, None) => Owner::Thread(THREAD.try_with(|id| *id).unwrap_or(u64::MAX)),
        }
    }
}

/// A copy of what is known of one live checkout.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Holder {
    /// Names this checkout within its monitor.
    pub id: HolderId,
    /// The pool's name.
    pub pool: String,
    /// What was checked out.
    pub kind: HolderKind,
    /// The label of the pool handle it came through.
    pub label: Option<String>,
    /// When it was granted.
    #[cfg_attr(
        feature = "json",
        serde(serialize_with = "crate::clock::json::timestamp")
    )]
    pub acquired_at: SystemTime,
    /// How long it has been out.
    #[cfg_attr(
        feature = "json",
        serde(rename = "held_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub held_for: Duration,
    /// How long it had waited before it was granted.
    #[cfg_attr(
        feature = "json",
        serde(rename = "waited_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub waited_for: Duration,
    /// The line that checked it out. `None` for a pooled statement: its caller is sqlx.
    pub acquired_by: Option<Location>,
    /// The stack of the checkout, at [`Detail::Backtrace`](crate::Detail::Backtrace).
    pub stack: Option<Stack>,
    /// When it was last seen in use.
    #[cfg_attr(
        feature = "json",
        serde(serialize_with = "crate::clock::json::maybe_timestamp")
    )]
    pub last_used_at: Option<SystemTime>,
    /// The line that last used it, or borrowed it as a raw connection.
    pub last_used_by: Option<Location>,
    /// The last statement seen, masked.
    pub last_sql: Option<String>,
    /// How many statements and raw loans were seen.
    pub uses: u32,
    /// What is known of the connection.
    pub activity: Activity,
    /// For how long that has been so.
    #[cfg_attr(
        feature = "json",
        serde(rename = "activity_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub activity_for: Duration,
    /// Whether a transaction is known to be open.
    pub in_transaction: bool,
    /// The server's name of its backend, PostgreSQL's pid or MariaDB's connection id. `None` where
    /// it was not learned: only [`PoolOptions::new`](crate::PoolOptions::new) asks for it.
    pub backend: Option<i64>,
    /// What the server said of that backend, when it was asked and nothing was seen since.
    pub server: Option<Testimony>,
    /// Who waits for a lock of it, by what the server said of them.
    pub blocks: Option<Blocks>,
    /// Where it is on its way.
    pub phase: Phase,
    /// For how long it has been on its way back, when it is. Its last statement is what the server
    /// may still be running.
    #[cfg_attr(
        feature = "json",
        serde(
            rename = "returning_ms",
            serialize_with = "crate::clock::json::maybe_millis"
        )
    )]
    pub returning_for: Option<Duration>,
    /// The request or job it serves.
    pub scope: Option<ScopeInfo>,
    /// In what it was when its request was cut; `None` for one whose request was not. Needs the layer.
    pub cut: Option<Cut>,
    /// The tokio task that checked it out.
    pub task_id: Option<String>,
    /// The tracing span in which it was checked out.
    pub span: Option<SpanInfo>,
    /// Whether it has been out for longer than its threshold.
    pub overdue: bool,
    /// The hold time beyond which it is overdue.
    #[cfg_attr(
        feature = "json",
        serde(rename = "threshold_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub threshold: Duration,
    /// Never reported for being old.
    pub unreported: bool,

    /// Lent out as a raw connection: an activity is then by the server's word.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) lent: bool,
    /// Since when nothing else was seen of it.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) seen_since: SystemTime,
    /// Rows were handed over and no more have been asked for.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) parked: bool,
    /// How many rows were handed over.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) rows: u64,
    /// Hold time and time in this activity, without the time the process stood still.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) running_for: Duration,
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) activity_running_for: Duration,
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) pool_id: u64,
    /// The limit for a transaction known to be idle.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) idle_limit: Option<Duration>,
    /// How long ago its scope ended, without the time the process stood still, and how long after
    /// that a checkout may stay out.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) scope_ended_for: Option<Duration>,
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) grace: Duration,
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) owner: Option<Owner>,
    /// How long ago its scope was last polled; zero while it is being polled.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) polled_ago: Option<Duration>,
    /// For how long its scope has been inside the poll that runs now.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) in_poll_for: Option<Duration>,
}

impl Holder {
    /// Idle, in a transaction, and both for certain.
    pub fn is_idle_in_transaction(&self) -> bool {
        self.in_transaction && matches!(self.activity, Activity::Idle { .. })
    }

    /// No statement runs on it: it waits for its owner and not for the database. False where that
    /// is not known.
    pub(crate) fn waits_for_its_owner(&self) -> bool {
        match self.activity {
            Activity::Idle { .. } => true,
            Activity::InFlight { .. } => self.parked,
            Activity::Unknown { .. } => false,
        }
    }
}

#[cfg(test)]
impl Holder {
    /// A young, harmless holder, to be changed by a test.
    pub(crate) fn harmless() -> Self {
        let since = SystemTime::UNIX_EPOCH;
        Self {
            id: HolderId(1),
            pool: "orders".into(),
            kind: HolderKind::Connection,
            label: None,
            acquired_at: since,
            held_for: Duration::ZERO,
            waited_for: Duration::ZERO,
            acquired_by: Some(Location::new("src/repo.rs", 88, 31)),
            stack: None,
            last_used_at: None,
            last_used_by: None,
            last_sql: None,
            uses: 0,
            activity: Activity::Idle { since },
            activity_for: Duration::ZERO,
            in_transaction: false,
            backend: None,
            server: None,
            blocks: None,
            phase: Phase::Held,
            returning_for: None,
            scope: None,
            cut: None,
            task_id: None,
            span: None,
            overdue: false,
            threshold: Duration::from_secs(10),
            unreported: false,
            lent: false,
            seen_since: since,
            parked: false,
            rows: 0,
            running_for: Duration::ZERO,
            activity_running_for: Duration::ZERO,
            pool_id: 1,
            idle_limit: None,
            scope_ended_for: None,
            grace: Duration::from_secs(1),
            owner: None,
            polled_ago: None,
            in_poll_for: None,
        }
    }
}
