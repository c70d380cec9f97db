//! What leaktrace says: one struct for every kind of finding.
//!
//! Responsible for the words of the contract: kinds, severities, causes. Not responsible for
//! deciding that something is a finding (`judge`) or for its text (`report`).

use std::fmt;
use std::time::SystemTime;

use crate::registry::{Holder, PoolInfo, PoolStatus, SiteTotal, Waiter};

/// Names one finding within its monitor. Prints as `#a3f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FindingId(pub(crate) u64);

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:x}", self.0)
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for FindingId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $severity:ident, $always:literal, $explain:literal;)+) => {
        /// What a finding is about. The names are stable: dashboards and alerts depend on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$doc])* $name,)+
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$name,)+];

            /// The stable name, such as `held_too_long`.
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$name => $word,)+ }
            }

            /// What it means, in one or two sentences.
            pub fn explain(self) -> &'static str {
                match self { $(Kind::$name => $explain,)+ }
            }

            /// How bad it is, unless the finding itself says otherwise.
            pub(crate) fn severity(self) -> Severity {
                match self { $(Kind::$name => Severity::$severity,)+ }
            }

            /// Whether it also speaks at [`Detail::Location`](crate::Detail::Location).
            pub(crate) fn always_speaks(self) -> bool {
                match self { $(Kind::$name => $always,)+ }
            }
        }
    };
}

kinds! {
    /// A holder passed its threshold.
    HeldTooLong = "held_too_long", Warn, false,
        "A connection has been checked out for longer than its threshold. The line that took it is named; whoever waits for the pool waits for it.";
    /// A transaction known to be idle.
    IdleInTransaction = "idle_in_transaction", Warn, false,
        "A transaction is open and no statement runs in it: the code awaits something else while it keeps a connection, its locks and its snapshot.";
    /// The request is over and the checkout is still held.
    OutlivedRequest = "outlived_request", Warn, false,
        "The request is over, its response sent or cut, and its checkout is still held: it was moved into a task, a field or a static.";
    /// A reported holder came back.
    ReturnedLate = "returned_late", Info, false,
        "A holder that was reported has come back: it was slow, not lost. The id is that of the report.";
    /// The pool has nothing to give.
    Exhausted = "exhausted", Error, true,
        "An acquire has waited for long, or has failed. The causes that were seen are named, the largest first.";
    /// A connection came back inside of a transaction.
    DirtyReturn = "dirty_return", Warn, true,
        "A connection came back to the pool inside of an open or aborted transaction. It was rolled back or closed before anybody else could get it.";
    /// The caller was told success and the data is not there.
    LostWrites = "lost_writes", Error, true,
        "The caller was told that all went well, and the data is not there: a commit of an aborted transaction, or writes that were dropped without a commit.";
    /// A commit was cancelled in flight.
    CommitUnknown = "commit_unknown", Warn, true,
        "A commit was cancelled while it was in flight: whether the data is there is not known to the caller.";
    /// The way back passed its limit.
    StuckReturn = "stuck_return", Warn, true,
        "A connection did not come back to the pool within its limit: the server was silent or busy. The finding says what was done about it.";
    /// `close()` waits for holders.
    CloseBlocked = "close_blocked", Warn, true,
        "close() waits until every connection is back, and these holders have not returned theirs.";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "json",
    derive(serde::Serialize),
    serde(rename_all = "lowercase")
)]
pub enum Severity {
    /// Good news.
    Info,
    /// It will fail somebody.
    Warn,
    /// Somebody was failed, or data is wrong.
    Error,
}

/// Why a pool is exhausted, and how many connections or waiters that explains.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Cause {
    /// Which.
    pub kind: CauseKind,
    /// How many connections or waiters it explains.
    pub share: u32,
    /// What was seen, in one line.
    pub detail: String,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)+) => {
        /// A cause of exhaustion. The names are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum CauseKind {
            $($(#[$doc])* $name,)+
        }

        impl CauseKind {
            /// The stable name, such as `overdue`.
            pub fn as_str(self) -> &'static str {
                match self { $(CauseKind::$name => $word,)+ }
            }
        }
    };
}

causes! {
    /// All connections are held by users that themselves wait for one.
    Deadlock = "deadlock";
    /// A request holds a connection and waits for another one.
    Nested = "nested";
    /// Holders past their threshold.
    Overdue = "overdue";
    /// Young holders: when most of them work, the pool is small or the statements are slow.
    Saturated = "saturated";
    /// Connections on their way back.
    Returning = "returning";
    /// No connection can be opened.
    Connecting = "connecting";
    /// A waiter that was granted a connection and is not polled.
    Stranded = "stranded";
    /// The runtime is blocked.
    Stalled = "stalled";
    /// Connections that were never seen: the raw pool is used.
    Untracked = "untracked";
}

impl fmt::Display for CauseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for CauseKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Something that leaktrace has to say.
///
/// `Display` is its whole text, several lines.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Finding {
    /// Names it; the `returned_late` that closes it bears the same id.
    pub id: FindingId,
    /// What it is about.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// The pool's name.
    pub pool: String,
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) pool_id: u64,
    /// The pool's counters when it was found.
    pub status: PoolStatus,
    /// What blocks the runtime, when it does not run what it is given.
    pub runtime: Option<String>,
    /// One line that suffices.
    pub headline: String,
    /// Why the pool is exhausted, the largest share first.
    pub causes: Vec<Cause>,
    /// What is known of an exhaustion of which no cause was seen.
    pub unexplained: Option<String>,
    /// The holders it speaks of, oldest first.
    #[cfg_attr(
        feature = "json",
        serde(serialize_with = "crate::site::serialize_named")
    )]
    pub holders: Vec<Holder>,
    /// The waiters it speaks of, oldest first.
    pub waiters: Vec<Waiter>,
    /// The sites of most connection time in the last minute.
    pub totals: Vec<SiteTotal>,
    /// What to do, when the evidence says it.
    pub remedy: Option<String>,
    /// When the oldest of it was first seen.
    #[cfg_attr(
        feature = "json",
        serde(serialize_with = "crate::clock::json::timestamp")
    )]
    pub first_seen: SystemTime,
    /// How many holders or waiters it speaks of.
    pub count: u64,
    /// How many more are out from the same line, and not past their limit.
    pub younger: u64,
}

impl Finding {
    /// How far an exhaustion has come: `waiting`, `timed_out` or `over`. `None` for other kinds.
    pub fn phase(&self) -> Option<&'static str> {
        match (self.kind, self.severity) {
            (Kind::Exhausted, Severity::Warn) => Some("waiting"),
            (Kind::Exhausted, Severity::Error) => Some("timed_out"),
            (Kind::Exhausted, Severity::Info) => Some("over"),
            _ => None,
        }
    }

    /// A finding about this pool, with nothing in it yet but its headline.
    pub(crate) fn new(id: FindingId, kind: Kind, pool: &PoolInfo, headline: String) -> Self {
        Self {
            id,
            kind,
            severity: kind.severity(),
            pool: pool.name.clone(),
            pool_id: pool.id,
            status: pool.status,
            runtime: None,
            headline,
            causes: Vec::new(),
            unexplained: None,
            holders: Vec::new(),
            waiters: Vec::new(),
            totals: Vec::new(),
            remedy: None,
            first_seen: SystemTime::now(),
            count: 0,
            younger: 0,
        }
    }
}
