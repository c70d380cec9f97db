//! What is read when somebody wants it: gauges, and the counters that the crate keeps.
//!
//! Responsible for [`Metrics`]. Not responsible for what is recorded when it happens (`events`).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::metrics::Recorder;

use super::events::{Events, Listener};
use super::names::{
    CANCELLED, CONNECT_ERRORS, COUNT, IDLE_MAX, IDLE_MIN, MAX, Metric, OLDEST_HOLD, ORPHANED,
    OVERFLOW, PENDING, POOL, RETURNING, ROLLBACKS, STATE, TIMEOUTS, UNTRACKED, UTILIZATION,
};
use super::outlet::{Outlet, Tag};
use crate::{AlreadyObserved, Monitor, Phase, PoolInfo};

/// Publishes the pools of a monitor through the [`metrics`](https://docs.rs/metrics) facade.
///
/// Histograms and findings are recorded when they happen. Everything else is read when
/// [`publish`](Self::publish) is called: by the handler of a scrape, or every few seconds by
/// [`publish_every`](Self::publish_every). Cheap to clone; all clones are the same.
///
/// Install the exporter first. One that is installed later gets everything from the next `publish` on.
///
/// # Cost
/// For each checkout two reads of a lock, each with a look into a small map, and what two samples cost
/// in the recorder's histograms. With [routes or sites](MetricsOptions) some allocations more. For each
/// `publish` a copy of the holders and some thirty look-ups in the recorder for each pool. Nothing wakes
/// up by itself.
///
/// # Examples
/// ```
/// use leaktrace::metrics::{BUCKETS, Metrics};
/// use leaktrace::{Config, Monitor};
/// use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let exporter = PrometheusBuilder::new()
///     .with_recommended_naming(true)
///     .set_buckets_for_metric(Matcher::Prefix("db.client.connection".into()), BUCKETS)?
///     .install_recorder()?;
/// let monitor = Monitor::new(Config::default());
/// let metrics = Metrics::of(&monitor)?;
///
/// // In the handler of `/metrics`:
/// metrics.publish();
/// let page = exporter.render();
/// # assert!(page.contains("leaktrace_cancelled_total"), "{page}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Metrics {
    monitor: Monitor,
    pub(super) events: Arc<Events>,
    state: Arc<Mutex<State>>,
}

/// What was published last.
#[derive(Default)]
pub(super) struct State {
    /// Counters, by metric, pool and further label.
    counted: HashMap<(&'static str, String, &'static str), u64>,
    pools: HashSet<String>,
    /// How often in a row each pool was not healthy.
    pub(super) failures: HashMap<String, u32>,
}

/// How [`Metrics`] are made.
#[derive(Clone, Default)]
#[must_use]
pub struct MetricsOptions {
    routes: Option<usize>,
    sites: Option<usize>,
    outlet: Outlet,
}

impl MetricsOptions {
    /// Adds the label `route` to `use_time`: the route of the request, or the name of the job, that a
    /// checkout served. The first `most` are kept, every further one is `other`.
    ///
    /// Off by default: each route is a histogram of a dozen series.
    pub fn routes(mut self, most: usize) -> Self {
        self.routes = Some(most);
        self
    }

    /// Adds the label `site` to `use_time`: the line that checked out. The first `most` are kept, every
    /// further one is `other`. A pooled statement has no line and is `(statement)`.
    ///
    /// Off by default. A line moves with each release of the service: expect new series then.
    pub fn sites(mut self, most: usize) -> Self {
        self.sites = Some(most);
        self
    }

    /// Records with `recorder` instead of the one that is installed.
    pub fn recorder(mut self, recorder: impl Recorder + Send + Sync + 'static) -> Self {
        self.outlet = Outlet::Given(Arc::new(recorder));
        self
    }

    /// Publishes this monitor.
    ///
    /// # Errors
    /// As [`Metrics::of`].
    pub fn of(self, monitor: &Monitor) -> Result<Metrics, AlreadyObserved> {
        let events = Arc::new(Events::new(self.outlet, self.routes, self.sites));
        monitor.observe(Listener(Arc::clone(&events)))?;
        monitor.add_sink(Listener(Arc::clone(&events)));
        let metrics = Metrics {
            monitor: monitor.clone(),
            events,
            state: Arc::default(),
        };
        metrics.publish();
        Ok(metrics)
    }
}

impl Metrics {
    /// Publishes this monitor with the recorder that is installed.
    ///
    /// # Errors
    /// When the monitor has an observer already: it is published by one `Metrics`, which is cloned.
    pub fn of(monitor: &Monitor) -> Result<Self, AlreadyObserved> {
        Self::options().of(monitor)
    }

    /// To be made otherwise than by default.
    pub fn options() -> MetricsOptions {
        MetricsOptions::default()
    }

    /// Reads the counters of this moment, and publishes them.
    pub fn publish(&self) {
        self.events.outlet.describe_all();
        let pools = self.monitor.pools();
        let holds = self.oldest_holds();
        let mut state = self.state();
        let gone: Vec<String> = state
            .pools
            .iter()
            .filter(|name| pools.iter().all(|pool| pool.name != **name))
            .cloned()
            .collect();
        for name in gone {
            self.forget(&mut state, &name);
        }
        for pool in &pools {
            if state.pools.insert(pool.name.clone()) {
                self.events.expect_findings(&pool.name);
            }
            self.events.refresh(&pool.name);
            let oldest = holds.get(&pool.name).copied().unwrap_or_default();
            self.set_gauges(&pool.name, pool, oldest);
            self.count_pool(&mut state, pool);
        }
        self.count_cancelled(&mut state);
    }

    /// Publishes now and then every `interval`, for exporters that answer scrapes by themselves. Runs
    /// until it is dropped, and wakes up also while nothing is held: that is what it is asked for.
    ///
    /// ```
    /// # use leaktrace::{Config, Monitor, metrics::Metrics};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let monitor = Monitor::new(Config::default());
    /// let metrics = Metrics::of(&monitor)?;
    /// tokio::spawn(metrics.publish_every(Duration::from_secs(5)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_every(
        &self,
        interval: Duration,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let metrics = self.clone();
        async move {
            loop {
                metrics.publish();
                tokio::time::sleep(interval).await;
            }
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By pool, how long the oldest holder has had its connection. Who holds one for good on purpose
    /// is never the oldest.
    fn oldest_holds(&self) -> HashMap<String, Duration> {
        let mut oldest: HashMap<String, Duration> = HashMap::new();
        for holder in self.monitor.holders() {
            if holder.phase == Phase::Held && !holder.unreported {
                let longest = oldest.entry(holder.pool).or_default();
                *longest = holder.held_for.max(*longest);
            }
        }
        oldest
    }

    fn set_gauges(&self, name: &str, pool: &PoolInfo, oldest: Duration) {
        let outlet = &self.events.outlet;
        let set = |metric: &Metric, value: f64| {
            outlet.gauge(metric, &[(POOL, name)]).set(value);
        };
        let status = &pool.status;
        let used = status.held + status.returning + status.in_progress;
        let stays = status.max.saturating_sub(pool.overflow);
        for (state, value) in [("idle", status.idle), ("used", used)] {
            let tags = [(POOL, name), (STATE, state)];
            outlet.gauge(COUNT, &tags).set(value);
        }
        set(MAX, status.max.into());
        set(IDLE_MIN, pool.min.into());
        set(IDLE_MAX, stays.into());
        set(PENDING, status.waiting.into());
        set(UTILIZATION, f64::from(used) / f64::from(status.max.max(1)));
        set(OVERFLOW, status.size.saturating_sub(stays).into());
        set(OLDEST_HOLD, oldest.as_secs_f64());
        set(RETURNING, status.returning.into());
        set(UNTRACKED, status.untracked.into());
    }

    fn count_pool(&self, state: &mut State, pool: &PoolInfo) {
        let name = &pool.name;
        let rollbacks = &pool.counts.rollbacks;
        self.count(state, TIMEOUTS, name, None, pool.counts.timeouts);
        self.count(
            state,
            CONNECT_ERRORS,
            name,
            None,
            pool.counts.connect_errors,
        );
        self.count(state, ORPHANED, name, None, pool.status.orphaned);
        for (cause, value) in [
            ("asked", rollbacks.asked),
            ("discarded", rollbacks.discarded),
            ("dropped", rollbacks.dropped),
            ("cut", rollbacks.cut),
            ("aborted", rollbacks.aborted),
            ("unseen", rollbacks.unseen),
        ] {
            self.count(state, ROLLBACKS, name, Some(("cause", cause)), value);
        }
    }

    /// Requests belong to no pool.
    fn count_cancelled(&self, state: &mut State) {
        let cancelled = self.monitor.cancelled();
        for (phase, value) in [
            ("idle", cancelled.idle),
            ("begin", cancelled.begin),
            ("statement", cancelled.statement),
            ("commit", cancelled.commit),
            ("rollback", cancelled.rollback),
            ("lent", cancelled.lent),
        ] {
            self.count(state, CANCELLED, "", Some(("phase", phase)), value);
        }
    }

    /// Adds what has come since the last time. A pool may be gone and another one bear its name: then
    /// its counters begin anew, and those that were published do not.
    fn count(
        &self,
        state: &mut State,
        metric: &Metric,
        pool: &str,
        tag: Option<(&'static str, &'static str)>,
        value: u64,
    ) {
        let further = tag.map_or("", |(_, value)| value);
        let key = (metric.name, pool.to_string(), further);
        let last = state.counted.insert(key, value).unwrap_or(0);
        let more = value.checked_sub(last).unwrap_or(value);
        let mut tags: Vec<Tag<'_>> = Vec::new();
        if !pool.is_empty() {
            tags.push((POOL, pool));
        }
        tags.extend(tag);
        self.events.outlet.counter(metric, &tags).increment(more);
    }

    /// The pool is gone. The facade cannot take a series back, so nothing of it is out or open.
    fn forget(&self, state: &mut State, name: &str) {
        self.set_gauges(name, &PoolInfo::default(), Duration::ZERO);
        state.pools.remove(name);
        state.counted.retain(|(_, pool, _), _| pool != name);
        #[cfg(feature = "kit")]
        self.forget_health(state, name);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("monitor", &self.monitor)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MetricsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsOptions")
            .field("routes", &self.routes)
            .field("sites", &self.sites)
            .finish_non_exhaustive()
    }
}
