//! For users' tests: assertions, and a transaction that is always rolled back.
//!
//! Responsible for one question, who still holds a connection, behind three doors: a `Result`
//! ([`Pool::find_leaks`]), an assertion that panics at the caller's line
//! ([`assert_no_leaks!`](crate::assert_no_leaks)), and a check for the rest of a block
//! ([`Pool::leak_check`]); and for [`rolled_back`]. Not responsible for reporting in production.

mod rolled_back;

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use sqlx::Database;

pub use self::rolled_back::{RolledBack, rolled_back};
use crate::clock::{Moment, span};
use crate::monitor::Monitor;
use crate::pool::Pool;
use crate::registry::{Activity, Holder, HolderId, Phase};
use crate::site::{CallSite, Location};

/// Who still holds a connection.
#[derive(Clone, Debug)]
pub struct Leaks {
    holders: Vec<Holder>,
    unseen: Unseen,
}

/// What is out of which there is no holder.
#[derive(Clone, Debug, Default)]
struct Unseen {
    /// How many were checked out at detail `off`.
    unlisted: usize,
    /// How many without a record are on their way back.
    returning: usize,
    /// How many are out through the raw pool.
    untracked: usize,
    /// Where the raw pool was handed out.
    handed_out: Vec<Location>,
}

impl Unseen {
    fn count(&self) -> usize {
        self.unlisted + self.returning + self.untracked
    }
}

impl Leaks {
    fn new(holders: Vec<Holder>, unseen: Unseen) -> Self {
        Self { holders, unseen }
    }

    /// The holders, oldest first.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unseen = &self.unseen;
        let count = self.holders.len() + unseen.count();
        let noun = if count == 1 {
            "connection is"
        } else {
            "connections are"
        };
        write!(f, "{count} {noun} not back in the pool")?;
        for holder in &self.holders {
            write!(f, "\n  {}", line(holder))?;
        }
        if unseen.unlisted > 0 {
            write!(
                f,
                "\n  {} without a record: checked out while the detail was off",
                unseen.unlisted
            )?;
        }
        if unseen.returning > 0 {
            write!(
                f,
                "\n  {} without a record, still returning",
                unseen.returning
            )?;
        }
        if unseen.untracked > 0 {
            let count = unseen.untracked;
            let lines: Vec<_> = unseen.handed_out.iter().map(Location::to_string).collect();
            write!(
                f,
                "\n  {count} out through the raw pool, which was handed out at {}",
                lines.join(", ")
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Leaks {}

fn line(holder: &Holder) -> String {
    let mut line = format!("pool \"{}\": {}", holder.pool, holder.kind);
    if let Some(label) = &holder.label {
        line += &format!(" \"{label}\"");
    }
    match &holder.acquired_by {
        Some(site) => line += &format!(" acquired at {site}"),
        None => line += " on the pool itself",
    }
    if let Some(site) = &holder.last_used_by {
        line += &format!(", last used at {site}");
    }
    if let Some(sql) = &holder.last_sql {
        line += &format!(", last statement {sql}");
    }
    if let Some(scope) = &holder.scope {
        line += &format!(", serving {}", scope.route);
    }
    let state = match (holder.phase, holder.activity) {
        (Phase::Returning, _) => {
            let age = holder.returning_for.unwrap_or_default();
            format!("still returning, for {}", span(age))
        }
        (Phase::LeakedOnPurpose, _) => "given away with leak()".into(),
        (Phase::Held, Activity::InFlight { .. }) => "held, a statement is in flight".into(),
        (Phase::Held, _) => "held".to_string(),
    };
    line += &format!(", {state}, out for {}", span(holder.held_for));
    line
}

/// Which holders a question is about.
struct Question<'a> {
    monitor: &'a Monitor,
    pool: Option<u64>,
}

impl Question<'_> {
    fn holders(&self) -> Vec<Holder> {
        let mut holders = self.monitor.holders();
        holders.retain(|holder| self.pool.is_none_or(|pool| holder.pool_id == pool));
        holders
    }

    /// What is out of which nothing was recorded. Only where the raw pool was handed out it is not
    /// taken for a connection that is being opened.
    fn unseen(&self, holders: &[Holder]) -> Unseen {
        let mut unseen = Unseen::default();
        let returns = |holder: &&Holder| holder.phase == Phase::Returning;
        let listed = holders.iter().filter(returns).count();
        let pools = self.monitor.registry().pools();
        let asked = |id: u64| self.pool.is_none_or(|pool| id == pool);
        for pool in pools.iter().filter(|pool| asked(pool.id)) {
            unseen.unlisted += pool.unlisted() as usize;
            let info = pool.info(Moment::now());
            unseen.returning += info.status.returning as usize;
            if !info.raw_handed_out.is_empty() && info.status.in_progress > 0 {
                unseen.untracked += info.status.in_progress as usize;
                unseen.handed_out.extend(info.raw_handed_out);
            }
        }
        unseen.returning = unseen.returning.saturating_sub(listed);
        unseen
    }

    /// Asks again, with growing pauses, until what is on its way has arrived.
    ///
    /// The clock is the system's and not tokio's: under paused time a return takes real time too.
    async fn ask(&self, within: Duration) -> Result<(), Leaks> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            let holders = self.holders();
            let unseen = self.unseen(&holders);
            if holders.is_empty() && unseen.count() == 0 {
                return Ok(());
            }
            let Some(left) = within.checked_sub(start.elapsed()) else {
                return Err(Leaks::new(holders, unseen));
            };
            // Of the raw pool's it is not known whether they are on their way.
            let returns = |holder: &Holder| holder.phase == Phase::Returning;
            if !holders.iter().any(returns) && unseen.returning + unseen.untracked == 0 {
                return Err(Leaks::new(holders, unseen));
            }
            tokio::time::sleep(pause.min(left)).await;
            tokio::task::yield_now().await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

macro_rules! doors {
    ($self:ident => $pool:expr, $monitor:expr) => {
        /// Answers who still holds a connection, waiting this long for those on their way back. A
        /// holder that is not on its way is not waited for: it is answered at once.
        ///
        /// What is out through [`Pool::as_sqlx`], or in a transaction of sqlx's own
        /// ([`sqlx::Acquire::begin`] on the pool), counts too, after that time.
        ///
        /// # Errors
        /// The holders, each with the line that took it.
        pub fn find_leaks(
            &self,
            within: Duration,
        ) -> impl Future<Output = Result<(), Leaks>> + Send + '_ {
            let $self = self;
            let question = Question {
                monitor: $monitor,
                pool: $pool,
            };
            async move { question.ask(within).await }
        }

        /// Checks the rest of a block: dropped, it panics if what was checked out since is still
        /// held. What is on its way back is not held.
        ///
        /// Raises the detail to [`Detail::Location`](crate::Detail::Location) while it lives.
        ///
        /// # Panics
        /// On drop, naming each holder. Never while the thread is unwinding.
        #[track_caller]
        pub fn leak_check(&self) -> LeakCheck {
            let $self = self;
            LeakCheck::new($monitor, $pool)
        }
    };
}

impl<DB: Database> Pool<DB> {
    doors!(pool => Some(pool.record_id()), pool.monitor());

    /// Closes the pool, waiting no longer than this for its holders.
    ///
    /// # Errors
    /// Who still holds a connection after that time. The pool is closed for new checkouts all the
    /// same, and what comes back later is closed.
    #[track_caller]
    pub fn close_within(
        &self,
        time: Duration,
    ) -> impl Future<Output = Result<(), Leaks>> + Send + '_ {
        let close = self.close();
        async move {
            match tokio::time::timeout(time, close).await {
                Ok(()) => Ok(()),
                Err(_) => {
                    let question = Question {
                        monitor: self.monitor(),
                        pool: Some(self.record_id()),
                    };
                    let holders = question.holders();
                    let unseen = question.unseen(&holders);
                    Err(Leaks::new(holders, unseen))
                }
            }
        }
    }
}

impl Monitor {
    doors!(monitor => None, monitor);
}

/// Panics on drop if something is still held that was checked out while it lived.
///
/// Made by [`Pool::leak_check`] and [`Monitor::leak_check`].
#[must_use = "it checks when it is dropped: bind it to a name such as `_check`"]
#[derive(Debug)]
pub struct LeakCheck {
    monitor: Monitor,
    pool: Option<u64>,
    before: HashSet<HolderId>,
    made_by: CallSite,
}

impl LeakCheck {
    #[track_caller]
    fn new(monitor: &Monitor, pool: Option<u64>) -> Self {
        monitor.check(true);
        let question = Question { monitor, pool };
        let before = question.holders().iter().map(|holder| holder.id).collect();
        Self {
            monitor: monitor.clone(),
            pool,
            before,
            made_by: CallSite::caller(),
        }
    }
}

impl Drop for LeakCheck {
    fn drop(&mut self) {
        let question = Question {
            monitor: &self.monitor,
            pool: self.pool,
        };
        let mut holders = question.holders();
        holders.retain(|holder| holder.phase == Phase::Held && !self.before.contains(&holder.id));
        self.monitor.check(false);
        if !holders.is_empty() && !std::thread::panicking() {
            let made_by = Location::from(self.made_by);
            panic!(
                "leak check of {made_by}: {}",
                Leaks::new(holders, Unseen::default())
            );
        }
    }
}

/// Asserts that a pool, or every pool of a monitor, has all its connections back.
///
/// Waits up to one second for those on their way. Use it in a test's last line.
///
/// # Panics
/// At the calling line, naming each holder.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sqlx::Error> {
/// let pool = leaktrace::SqlitePool::connect("sqlite::memory:").await?;
/// sqlx::query("SELECT 1").execute(&pool).await?;
/// leaktrace::assert_no_leaks!(pool);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! assert_no_leaks {
    ($pool:expr $(,)?) => {
        if let ::std::result::Result::Err(leaks) =
            $pool.find_leaks(::std::time::Duration::from_secs(1)).await
        {
            ::std::panic!("{leaks}");
        }
    };
}
