//! The record of one watched pool.
//!
//! Responsible for its name, its counters and its policies. Not responsible for its connections:
//! sqlx keeps those, and is asked through [`Gauges`].

use std::any::Any;
use std::sync::OnceLock;
use std::time::Duration;

use futures_core::future::BoxFuture;

use super::CallSiteList;
use super::attempts::Attempts;
use super::counts::Counts;
use super::habits::Habits;
use super::lows::Lows;
use super::pulse::Probe;
use super::returns::{Reached, Returns, Word};
use super::status::{PoolInfo, PoolStatus};
use super::tallies::Tallies;
use super::testimony::{Answer, Question};
use crate::clock::Moment;
use crate::site::{CallSite, Location, text};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What only the pool itself knows. Read at a moment of its own.
pub(crate) trait Gauges: Send + Sync {
    /// The address of the pool's options: the same for all its clones.
    fn identity(&self) -> usize;
    fn max(&self) -> u32;
    fn min(&self) -> u32;
    fn size(&self) -> u32;
    fn idle(&self) -> u32;
    fn acquire_timeout(&self) -> Duration;
    /// Opens one connection beside the pool and closes it again, to hear what the server says.
    fn attempt(&self) -> Attempt;
    /// Asks the server over a connection beside the pool about the backend of a connection that does
    /// not come back, and cancels what runs there, if it may. Says when that connection is open. The
    /// caller limits the time.
    fn ask(
        &self,
        backend: Option<i64>,
        may_cancel: bool,
        reached: Reached,
    ) -> BoxFuture<'static, Word>;
    /// Asks the server over a connection beside the pool what these backends do; changes nothing.
    /// Limits its time itself.
    fn testify(&self, question: Question) -> BoxFuture<'static, Answer>;
}

/// An attempt to connect: the server's own words when it fails.
pub(crate) type Attempt = BoxFuture<'static, Result<(), String>>;

/// How the checkouts of one handle of a pool are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Policy {
    pub(crate) label: Option<&'static str>,
    pub(crate) threshold: Option<Duration>,
    /// Never reported for being old.
    pub(crate) unreported: bool,
}

/// A `close()` that has not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub(crate) since: Moment,
    pub(crate) by: CallSite,
}

/// Counters and facts of one pool, shared by all its handles, holders and waiters.
pub(crate) struct PoolRecord {
    pub(crate) id: u64,
    pub(crate) name: String,
    /// When it was first watched.
    pub(super) since: Moment,
    pub(super) gauges: Box<dyn Gauges>,
    pub(super) counts: Counts,
    /// How many of `held` have no record: they were checked out at detail `off`.
    pub(super) unlisted: AtomicU32,
    pub(super) waiting: AtomicU32,
    /// How many acquires are in their first poll at this moment.
    pub(super) asking: AtomicU32,
    /// Permits whose backend was left behind on the server: nobody could end it.
    orphaned: AtomicU64,
    pub(crate) habits: Habits,
    pub(crate) tallies: Tallies,
    /// When a connection last came back for which somebody waited; zero for never.
    served: AtomicU64,
    learns: AtomicBool,
    stated: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Where the raw pool was handed out.
    raw: Mutex<CallSiteList>,
    /// When it last was; zero for never.
    raw_since: AtomicU64,
    closing: Mutex<Vec<(u64, Closing)>>,
    in_progress: Mutex<Lows>,
    pub(crate) returns: Returns,
    /// The runtime that was last seen with this pool, for drops outside of any.
    runtime: Mutex<Option<tokio::runtime::Handle>>,
    pub(super) probe: Mutex<Probe>,
    pub(super) attempts: Attempts,
}

impl PoolRecord {
    pub(crate) fn new(id: u64, name: &str, gauges: Box<dyn Gauges>) -> Self {
        Self {
            id,
            name: text::escape_text(name, 100).into_owned(),
            since: Moment::now(),
            gauges,
            counts: Counts::default(),
            unlisted: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            asking: AtomicU32::new(0),
            orphaned: AtomicU64::new(0),
            habits: Habits::default(),
            tallies: Tallies::default(),
            served: AtomicU64::new(0),
            learns: AtomicBool::new(false),
            stated: OnceLock::new(),
            raw: Mutex::default(),
            raw_since: AtomicU64::new(0),
            closing: Mutex::default(),
            in_progress: Mutex::default(),
            returns: Returns::default(),
            runtime: Mutex::default(),
            probe: Mutex::default(),
            attempts: Attempts::default(),
        }
    }

    /// Keeps the options as the user set them; this module does not know their type.
    pub(crate) fn state(&self, options: Box<dyn Any + Send + Sync>) {
        let _ = self.stated.set(options);
    }

    pub(crate) fn stated(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.stated.get().map(|options| &**options)
    }

    /// Hooks learn which backend a connection has when it is acquired.
    pub(crate) fn set_learns(&self) {
        self.learns.store(true, Ordering::Relaxed);
    }

    pub(crate) fn learns(&self) -> bool {
        self.learns.load(Ordering::Relaxed)
    }

    pub(super) fn identity(&self) -> usize {
        self.gauges.identity()
    }

    pub(crate) fn acquire_timeout(&self) -> Duration {
        self.gauges.acquire_timeout()
    }

    /// Remembers the current runtime, if there is one.
    pub(crate) fn runtime_is_here(&self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            *self.runtime.lock() = Some(runtime);
        }
    }

    pub(crate) fn runtime(&self) -> Option<tokio::runtime::Handle> {
        self.runtime.lock().clone()
    }

    /// Connections that are idle, or may be opened.
    pub(super) fn free(&self) -> u32 {
        let unopened = self.gauges.max().saturating_sub(self.gauges.size());
        unopened.saturating_add(self.gauges.idle())
    }

    /// A checkout is over. Whether somebody waits is looked at a little late: who is served at once on
    /// another thread is not seen, and the next one is.
    pub(super) fn came_back(&self) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            let now = Moment::now().as_nanos();
            self.served.store(now, Ordering::Relaxed);
        }
    }

    /// How long ago a connection came back for which somebody waited.
    pub(crate) fn served_ago(&self) -> Option<Duration> {
        let served = Moment::from_nanos(self.served.load(Ordering::Relaxed))?;
        Some(Moment::now().since(served))
    }

    /// Whether one of the connections is closed when it comes back, because there are too many.
    pub(crate) fn leaves(&self) -> bool {
        // Who was granted one that is idle by now waits until it is polled, and needs no other.
        let waits = self.waiting.load(Ordering::Acquire) > self.gauges.idle();
        !waits && self.habits.leaves(self.gauges.size(), self.gauges.max())
    }

    /// Remembers that the raw pool was handed out at `site`: its use is not seen.
    pub(crate) fn handed_out(&self, site: CallSite) {
        self.raw_since
            .store(Moment::now().as_nanos(), Ordering::Relaxed);
        self.raw.lock().add(site);
    }

    /// Whether a connection may be out through the raw pool. Only looking tells for how long, so
    /// somebody has to look while this is so.
    pub(crate) fn may_be_used_raw(&self, now: Moment) -> bool {
        /// From the raw pool's handing out to its use.
        const SOON: Duration = Duration::from_secs(2);
        let Some(handed_out) = Moment::from_nanos(self.raw_since.load(Ordering::Relaxed)) else {
            return false;
        };
        self.status(now).in_progress > 0 || now.since(handed_out) < SOON
    }

    pub(crate) fn closing(&self, id: u64, closing: Closing) {
        self.closing.lock().push((id, closing));
    }

    pub(crate) fn closed(&self, id: u64) {
        self.closing.lock().retain(|(known, _)| *known != id);
    }

    pub(crate) fn is_closing(&self) -> bool {
        !self.closing.lock().is_empty()
    }

    /// The oldest `close()` that has not ended.
    pub(crate) fn oldest_closing(&self) -> Option<Closing> {
        self.closing.lock().first().map(|(_, closing)| *closing)
    }

    /// How many are held of which nothing was recorded.
    pub(crate) fn unlisted(&self) -> u32 {
        self.unlisted.load(Ordering::Acquire)
    }

    /// Asks the server whether something runs on that backend; cancels nothing.
    pub(crate) fn is_running(&self, backend: Option<i64>) -> BoxFuture<'static, Word> {
        self.gauges.ask(backend, false, Box::new(|| ()))
    }

    /// Asks the server what these backends do; changes nothing.
    pub(crate) fn testify(&self, question: Question) -> BoxFuture<'static, Answer> {
        self.gauges.testify(question)
    }

    /// Asks the server about the backend of a return that is stuck.
    pub(super) fn ask(
        &self,
        backend: Option<i64>,
        may_cancel: bool,
        reached: Reached,
    ) -> BoxFuture<'static, Word> {
        self.gauges.ask(backend, may_cancel, reached)
    }

    /// A permit is free whose backend may run on.
    pub(super) fn orphan(&self) {
        self.orphaned.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn max(&self) -> u32 {
        self.gauges.max()
    }

    /// Whether nothing of it is shown, and nothing is on its way back.
    pub(super) fn is_quiet(&self) -> bool {
        let (held, returning) = self.counts.read();
        held <= self.unlisted() && returning == 0
    }

    pub(crate) fn status(&self, now: Moment) -> PoolStatus {
        let (held, returning) = self.counts.read();
        let waiting = self.waiting.load(Ordering::Acquire);
        let size = self.gauges.size();
        let idle = self.gauges.idle();
        let in_progress = size
            .saturating_sub(idle)
            .saturating_sub(held)
            .saturating_sub(returning);
        let untracked = self.in_progress.lock().observe(now, in_progress, waiting);
        PoolStatus {
            held,
            returning,
            waiting,
            orphaned: self.orphaned.load(Ordering::Relaxed),
            max: self.gauges.max(),
            size,
            idle,
            in_progress,
            untracked,
        }
    }

    pub(crate) fn info(&self, now: Moment) -> PoolInfo {
        let raw = self.raw.lock();
        PoolInfo {
            id: self.id,
            name: self.name.clone(),
            status: self.status(now),
            min: self.gauges.min(),
            overflow: self.habits.overflow(),
            counts: self.tallies.read(),
            raw_handed_out: raw.sites().map(Location::from).collect(),
        }
    }
}
