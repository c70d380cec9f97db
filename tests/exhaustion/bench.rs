//! A monitor whose findings are kept, and the questions that the tests ask of them.

use std::time::Duration;

use leaktrace::{
    Cause, CauseKind, Config, Detail, Finding, Kind, Monitor, Pool, PoolOptions, Severity,
};
use sqlx::Database;

use crate::support::db::open_idle;
use crate::support::{Capture, TestDb, eventually};

/// Longer than any test needs on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A monitor and everything it says.
pub(crate) struct Bench {
    pub(crate) monitor: Monitor,
    pub(crate) findings: Capture<Finding>,
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        let monitor = Monitor::new(config);
        let findings = Capture::new();
        let kept = findings.clone();
        monitor.add_sink(move |finding: &Finding| kept.push(finding.clone()));
        Self { monitor, findings }
    }

    /// Says that somebody waits after 200 ms, and asks a server whenever it may.
    pub(crate) fn quick() -> Self {
        Self::new(quick())
    }

    pub(crate) fn pool<DB: Database>(
        &self,
        db: &TestDb,
        max: u32,
        acquire_timeout: Duration,
    ) -> Pool<DB> {
        self.pool_at(&db.url, max, acquire_timeout)
    }

    /// With every connection open before it is watched, and none asked whether it is alive: what is
    /// idle is given out at once. On a busy machine opening one, or its answer, may take longer than a
    /// wait may.
    pub(crate) async fn open_pool<DB: Database>(
        &self,
        db: &TestDb,
        max: u32,
        acquire_timeout: Duration,
    ) -> Pool<DB> {
        let options = sqlx::pool::PoolOptions::new()
            .max_connections(max)
            .test_before_acquire(false)
            .acquire_timeout(acquire_timeout);
        let raw: sqlx::Pool<DB> = options.connect_lazy(&db.url).expect("a URL");
        open_idle(&raw, max as usize).await;
        self.monitor.watch("orders", raw)
    }

    pub(crate) fn pool_at<DB: Database>(
        &self,
        url: &str,
        max: u32,
        acquire_timeout: Duration,
    ) -> Pool<DB> {
        PoolOptions::new()
            .monitor(&self.monitor)
            .name("orders")
            .max_connections(max)
            .acquire_timeout(acquire_timeout)
            .connect_lazy(url)
            .expect("a URL")
    }

    /// The next finding that somebody waits.
    pub(crate) async fn waiting(&self) -> Finding {
        self.exhausted(Severity::Warn).await
    }

    /// The finding that an acquire failed.
    pub(crate) async fn timed_out(&self) -> Finding {
        self.exhausted(Severity::Error).await
    }

    /// The line that an exhaustion is over.
    pub(crate) async fn over(&self) -> Finding {
        self.exhausted(Severity::Info).await
    }

    async fn exhausted(&self, severity: Severity) -> Finding {
        let what = format!("exhausted, {severity:?}");
        self.findings
            .wait_for(&what, PATIENCE, |findings| {
                let mut findings = findings.iter();
                findings
                    .find(|finding| finding.kind == Kind::Exhausted && finding.severity == severity)
                    .cloned()
            })
            .await
    }

    /// How often a phase was said.
    pub(crate) fn count(&self, severity: Severity) -> usize {
        let findings = self.findings.all();
        let of_phase =
            |finding: &&Finding| finding.kind == Kind::Exhausted && finding.severity == severity;
        findings.iter().filter(of_phase).count()
    }

    /// A finding with this cause.
    pub(crate) async fn cause(&self, kind: CauseKind) -> (Finding, Cause) {
        self.findings
            .wait_for(kind.as_str(), PATIENCE, |findings| {
                findings.iter().find_map(|finding| {
                    let cause = cause(finding, kind)?;
                    Some((finding.clone(), cause.clone()))
                })
            })
            .await
    }

    /// Nothing that was said names one of these causes.
    #[track_caller]
    pub(crate) fn never_said(&self, kinds: &[CauseKind]) {
        for finding in self.findings.all() {
            for kind in kinds {
                assert!(cause(&finding, *kind).is_none(), "{finding}");
            }
        }
    }

    /// Waits until so many wait for a connection.
    pub(crate) async fn until_waiting(&self, count: usize) {
        eventually("all of them wait", PATIENCE, async || {
            match self.monitor.waiters().len() {
                seen if seen == count => Ok(()),
                seen => Err(seen),
            }
        })
        .await;
    }
}

pub(crate) fn quick() -> Config {
    Config::default()
        .detail(Detail::Location)
        .wait(millis(200))
        .report_interval(millis(1))
}

pub(crate) fn cause(finding: &Finding, kind: CauseKind) -> Option<&Cause> {
    finding.causes.iter().find(|cause| cause.kind == kind)
}

/// The line of this file with that code, as a report shows it: `tests/exhaustion/nested.rs:12`.
#[macro_export]
macro_rules! at {
    ($code:literal) => {
        $crate::bench::line_of(
            file!(),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", file!())),
            $code,
        )
    };
}

#[track_caller]
pub(crate) fn line_of(file: &str, source: &str, code: &str) -> String {
    let is_it = |line: &str| line.contains(code) && !line.contains("at!(");
    let index = source.lines().position(is_it).expect("the code is here");
    format!("{file}:{}:", index + 1)
}

#[track_caller]
pub(crate) fn assert_names(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}
