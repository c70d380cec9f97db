//! The value that ties it together.
//!
//! Responsible for settings that change while running, for starting the watchdog and the reporter,
//! and for what both see. Not responsible for pools (`pool`) or requests (`layer`): those add their
//! own methods to [`Monitor`].

mod alarm;
mod endings;
mod exhaustion;
mod looks;
mod outage;
mod records;
mod requests;
mod scan;
mod stall;
mod under_way;
mod witness;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use self::exhaustion::Exhaustion;
pub use self::requests::CancelCounts;
use self::requests::Cuts;
use self::stall::Heed;
#[cfg(feature = "tower")]
pub(crate) use self::under_way::Listed;
use self::under_way::UnderWay;
use self::witness::Questions;
use crate::clock::{Moment, Stops, uptime};
use crate::config::{Config, ConfigError, Detail, Threshold, from_environment};
use crate::finding::{FindingId, Kind};
use crate::judge;
use crate::registry::{
    AlreadyObserved, CheckoutObserver, Holder, HolderId, Limits, PoolInfo, Registry, Snapshot,
    Waiter,
};
use crate::report::{Group, Report, group};
use crate::scope::Counters;
use crate::sink::{Door, FindingSink, Reporter, Voice};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::watchdog::Watchdog;

/// Watches pools, and says who holds their connections for too long.
///
/// Cheap to clone; all clones are the same monitor. A service usually has one,
/// [`Monitor::global`]; tests that run in parallel have one each.
///
/// # Examples
/// ```
/// use leaktrace::{Config, Detail, Monitor};
///
/// let monitor = Monitor::new(Config::default().detail(Detail::Backtrace));
/// assert!(monitor.holders().is_empty());
/// ```
#[derive(Clone)]
pub struct Monitor(Arc<Inner>);

struct Inner {
    config: Config,
    settings: Mutex<Settings>,
    /// `settings.detail`, raised by live leak checks: what the hot path reads.
    detail: AtomicU8,
    registry: Arc<Registry>,
    door: Mutex<Door>,
    reporter: Reporter,
    watchdog: Arc<Watchdog>,
    started: OnceLock<()>,
    stops: Mutex<Stops>,
    requests: Counters,
    cut: Cuts,
    under_way: UnderWay,
    exhaustion: Mutex<Exhaustion>,
    questions: Mutex<Questions>,
    suspects: Mutex<Vec<endings::Suspect>>,
}

/// What can be changed while running.
#[derive(Clone, Copy)]
struct Settings {
    detail: Detail,
    threshold: Threshold,
    /// How many leak checks are alive: they need at least [`Detail::Location`].
    checks: u32,
    /// An exhaustion raised the detail until then.
    escalated: Option<Moment>,
}

impl Settings {
    fn effective(&self) -> Detail {
        match self.detail {
            Detail::Location if self.escalated.is_some() => Detail::Backtrace,
            Detail::Off if self.checks > 0 => Detail::Location,
            detail => detail,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.watchdog.stop();
    }
}

impl Monitor {
    /// Makes a monitor with these settings.
    ///
    /// The tracing subscriber that is current here receives its findings, also where it is a scoped
    /// one. Threads are started with the first pool.
    pub fn new(config: Config) -> Self {
        let voice = Voice::here();
        if config.get_strict() {
            voice.note(
                "strict mode: nested checkouts and commits that saved nothing are errors; meant for tests",
            );
        }
        let registry = Registry::new(config.get_unwinder());
        if config.get_detail() == Detail::Backtrace {
            registry.stacks.prepare();
        }
        Self(Arc::new(Inner {
            settings: Mutex::new(Settings {
                detail: config.get_detail(),
                threshold: config.get_threshold(),
                checks: 0,
                escalated: None,
            }),
            detail: AtomicU8::new(config.get_detail() as u8),
            config,
            registry: Arc::new(registry),
            door: Mutex::new(Door::new()),
            reporter: Reporter::new(voice),
            watchdog: Watchdog::new(),
            started: OnceLock::new(),
            stops: Mutex::default(),
            requests: Counters::default(),
            cut: Cuts::default(),
            under_way: UnderWay::new(),
            exhaustion: Mutex::default(),
            questions: Mutex::default(),
            suspects: Mutex::default(),
        }))
    }

    /// Makes a monitor with the settings of the environment.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Ok(Self::new(Config::from_env()?))
    }

    /// The monitor of this process, made from the environment when it is first asked for.
    ///
    /// A variable that cannot be read is logged once at ERROR and keeps its default: a typo never
    /// takes a service down and never passes in silence.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<Monitor> = OnceLock::new();
        GLOBAL.get_or_init(|| {
            let mut config = Config::default();
            let mut errors = Vec::new();
            config.read(from_environment, |error| errors.push(error));
            for error in errors {
                Voice::here().error(&format!("{error}; the default is used"));
            }
            Self::new(config)
        })
    }

    /// How much is recorded of each checkout.
    pub fn detail(&self) -> Detail {
        Detail::from_index(self.0.detail.load(Ordering::Relaxed))
    }

    /// Changes how much is recorded, from the next checkout on.
    pub fn set_detail(&self, detail: Detail) {
        self.change(|settings| {
            settings.detail = detail;
            // Whoever sets it now wants this and not what an exhaustion made of it.
            settings.escalated = None;
        });
    }

    /// The hold time beyond which a holder is overdue.
    pub fn threshold(&self) -> Threshold {
        self.0.settings.lock().threshold
    }

    /// Changes the hold time beyond which a holder is overdue, for those that are out too.
    pub fn set_threshold(&self, threshold: impl Into<Threshold>) {
        let threshold = threshold.into();
        self.change(|settings| settings.threshold = threshold);
    }

    /// The settings this monitor was made with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Who holds a connection, oldest first; pooled statements and those on their way back too.
    pub fn holders(&self) -> Vec<Holder> {
        let stops = self.0.stops.lock().clone();
        self.0
            .registry
            .holders(Moment::now(), &self.limits(), &stops)
    }

    /// Who waits for a connection, longest first.
    pub fn waiters(&self) -> Vec<Waiter> {
        self.0.registry.waiters(Moment::now())
    }

    /// The pools it watches, with their counters of this moment, in the order in which they were first
    /// watched. Much cheaper than a [report](Self::report).
    pub fn pools(&self) -> Vec<PoolInfo> {
        let now = Moment::now();
        let pools = self.0.registry.pools();
        pools.iter().map(|pool| pool.info(now)).collect()
    }

    /// The account of this moment. Judged by the same rules as findings, at any detail.
    pub fn report(&self) -> Report {
        let now = Moment::now();
        let snapshot = self.snapshot(now);
        let runtime = self.runtimes(now, Heed::NOW).sentence();
        let causes = self.causes_now(&snapshot, now);
        let door = self.0.door.lock();
        let verdicts: HashMap<HolderId, (Kind, Option<FindingId>)> =
            judge::holds(&snapshot.holders)
                .claims
                .iter()
                .map(|claim| {
                    let finding = door.verdict(claim.holder).map(|(_, id)| id);
                    (claim.holder, (claim.kind, finding))
                })
                .collect();
        drop(door);
        let mut groups = group(snapshot.holders, &verdicts, &snapshot.waiters);
        let groups_left_out = groups.len().saturating_sub(Group::MOST);
        groups.truncate(Group::MOST);
        Report {
            taken_at: SystemTime::now(),
            uptime: uptime(),
            runtime,
            pools: snapshot.pools,
            groups,
            groups_left_out,
            causes,
            waiters: snapshot.waiters,
            totals: snapshot.totals,
            not_recorded: snapshot.dropped,
            findings_dropped: self.0.reporter.dropped(),
        }
    }

    pub(crate) fn snapshot(&self, now: Moment) -> Snapshot {
        let mut snapshot = self.look(now);
        self.0.registry.add_totals(&mut snapshot, now);
        snapshot
    }

    /// A snapshot without the totals.
    fn look(&self, now: Moment) -> Snapshot {
        let stops = self.0.stops.lock().clone();
        self.0.registry.snapshot(now, &self.limits(), &stops)
    }

    /// Hands every finding from now on to `sink` too.
    pub fn add_sink(&self, sink: impl FindingSink + 'static) {
        self.0.reporter.add_sink(Arc::new(sink));
    }

    /// Lets `observer` hear of every checkout from now on.
    ///
    /// # Errors
    /// When this monitor has an observer already.
    ///
    /// # Cost
    /// See [`CheckoutObserver`].
    ///
    /// ```
    /// use leaktrace::{CheckoutObserver, Config, Monitor, Release};
    ///
    /// struct Slow;
    ///
    /// impl CheckoutObserver for Slow {
    ///     fn released(&self, release: &Release<'_>) {
    ///         if release.held_for().as_secs() > 1 {
    ///             eprintln!("{}: {:?}", release.pool(), release.held_for());
    ///         }
    ///     }
    /// }
    ///
    /// let monitor = Monitor::new(Config::default());
    /// assert!(monitor.observe(Slow).is_ok());
    /// assert!(monitor.observe(Slow).is_err());
    /// ```
    pub fn observe(
        &self,
        observer: impl CheckoutObserver + 'static,
    ) -> Result<(), AlreadyObserved> {
        self.0.registry.observed.set(Box::new(observer))
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.0.settings.lock();
        change(&mut settings);
        let detail = settings.effective();
        if detail == Detail::Backtrace && self.detail() != detail {
            self.0.registry.stacks.prepare();
        }
        self.0.detail.store(detail as u8, Ordering::Relaxed);
        drop(settings);
        self.0.watchdog.wake_now();
    }

    /// A leak check begins or ends: it needs to know who holds what.
    pub(crate) fn check(&self, begins: bool) {
        self.change(|settings| {
            settings.checks = match begins {
                true => settings.checks.saturating_add(1),
                false => settings.checks.saturating_sub(1),
            };
        });
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.0.registry
    }

    /// Starts the watchdog, once. A monitor without pools has no threads.
    pub(crate) fn start(&self) {
        self.0.started.get_or_init(|| {
            let monitor = Arc::downgrade(&self.0);
            let started = self.0.watchdog.start(move |stop| scan::scan(&monitor, stop));
            if let Err(error) = started {
                Voice::here().error(&format!(
                    "the watchdog thread cannot be started ({error}): holders are listed, and not reported"
                ));
            }
        });
    }

    fn limits(&self) -> Limits {
        Limits {
            threshold: self.threshold(),
            idle_in_transaction: self.0.config.get_idle_in_transaction(),
            grace: self.0.config.get_grace(),
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("detail", &self.detail())
            .field("threshold", &self.threshold())
            .finish_non_exhaustive()
    }
}
