//! What is measured: one way to check a connection out, on one database.
//!
//! Responsible for the designs that stand side by side and for what one checkout of each does. Not
//! responsible for how often, nor for figures.

use std::future::Future;
use std::hint::black_box;
use std::str::FromStr;
use std::time::{Duration, Instant};

use leaktrace::metrics::Metrics;
use leaktrace::{Config, Detail, Monitor, Unwinder};
use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::{Database, Postgres, Sqlite};

/// As many connections as every pool here has.
pub(crate) const POOL: u32 = 10;

/// A way to check a connection out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Design {
    Raw,
    /// sqlx and `std::backtrace` at each checkout: what one would write first.
    Naive,
    /// A finished sqlx pool, watched.
    Watched(Detail),
    /// A pool made by leaktrace's own `PoolOptions`.
    Own(Detail),
    /// Watched at `backtrace`, with the system's unwinder.
    Portable,
    /// Watched at `location`, with metrics for Prometheus.
    Measured,
    /// Watched at `backtrace`, with 200 ns added to each acquire: what the self-check must notice.
    Delayed,
}

/// One row of a table: a design and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) design: Design,
    pub(crate) test_before_acquire: bool,
}

impl Setting {
    pub(crate) fn new(design: Design, test_before_acquire: bool) -> Self {
        Self {
            design,
            test_before_acquire,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self.design {
            Design::Raw => "raw sqlx",
            Design::Naive => "raw sqlx + std::backtrace",
            Design::Watched(_) => "leaktrace, watched pool",
            Design::Own(_) => "leaktrace, own PoolOptions",
            Design::Portable => "leaktrace, watched pool, portable capture",
            Design::Measured => "leaktrace, watched pool, metrics",
            Design::Delayed => "leaktrace, 200 ns added",
        }
    }

    pub(crate) fn detail(self) -> String {
        match self.design {
            Design::Raw | Design::Naive => "-".to_string(),
            Design::Watched(detail) | Design::Own(detail) => detail.to_string(),
            Design::Measured => Detail::Location.to_string(),
            Design::Portable | Design::Delayed => Detail::Backtrace.to_string(),
        }
    }
}

/// A database that is measured on.
pub(crate) trait Backend: Database + Sized {
    /// One statement on a connection of sqlx.
    fn on_raw(
        conn: &mut sqlx::pool::PoolConnection<Self>,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// The same statement on a guard of leaktrace.
    fn on_ours(
        conn: &mut leaktrace::PoolConnection<Self>,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

macro_rules! backend {
    ($db:ty) => {
        impl Backend for $db {
            async fn on_raw(
                conn: &mut sqlx::pool::PoolConnection<Self>,
            ) -> Result<(), sqlx::Error> {
                sqlx::query("SELECT 1").execute(&mut **conn).await.map(drop)
            }

            async fn on_ours(
                conn: &mut leaktrace::PoolConnection<Self>,
            ) -> Result<(), sqlx::Error> {
                sqlx::query("SELECT 1").execute(&mut **conn).await.map(drop)
            }
        }
    };
}

backend!(Sqlite);
backend!(Postgres);

type Options<DB> = <<DB as Database>::Connection as sqlx::Connection>::Options;

/// A pool of one design.
#[derive(Debug)]
pub(crate) struct Subject<DB: Backend> {
    pub(crate) setting: Setting,
    pub(super) raw: sqlx::Pool<DB>,
    pub(super) ours: Option<leaktrace::Pool<DB>>,
}

impl<DB: Backend> Clone for Subject<DB> {
    fn clone(&self) -> Self {
        Self {
            setting: self.setting,
            raw: self.raw.clone(),
            ours: self.ours.clone(),
        }
    }
}

impl<DB: Backend> Subject<DB> {
    pub(crate) async fn open(setting: Setting, options: &Options<DB>) -> Result<Self, sqlx::Error> {
        let plain = || {
            sqlx::pool::PoolOptions::<DB>::new()
                .max_connections(POOL)
                .test_before_acquire(setting.test_before_acquire)
        };
        let unwinder = match setting.design {
            Design::Portable => Unwinder::Portable,
            _ => Unwinder::Auto,
        };
        let monitor = |detail| Monitor::new(Config::default().detail(detail).unwinder(unwinder));
        let detail = match setting.design {
            Design::Raw | Design::Naive => {
                let raw = plain().connect_with(options.clone()).await?;
                return Ok(Self {
                    setting,
                    raw,
                    ours: None,
                });
            }
            Design::Own(detail) => {
                let ours = leaktrace::PoolOptions::<DB>::new()
                    .monitor(monitor(detail))
                    .max_connections(POOL)
                    .test_before_acquire(setting.test_before_acquire)
                    .connect_with(options.clone())
                    .await?;
                let raw = ours.as_sqlx().clone();
                return Ok(Self {
                    setting,
                    raw,
                    ours: Some(ours),
                });
            }
            Design::Watched(detail) => detail,
            Design::Measured => Detail::Location,
            Design::Portable | Design::Delayed => Detail::Backtrace,
        };
        let raw = plain().connect_with(options.clone()).await?;
        let monitor = monitor(detail);
        if setting.design == Design::Measured {
            let recorder = PrometheusBuilder::new().build_recorder();
            let metrics = Metrics::options().recorder(recorder).of(&monitor);
            metrics.expect("a monitor of its own");
        }
        let ours = Some(monitor.watch("bench", raw.clone()));
        Ok(Self { setting, raw, ours })
    }

    /// Acquire, perhaps one statement, drop. The time until the drop has returned.
    pub(crate) async fn checkout(&self, statement: bool) -> Result<Duration, sqlx::Error> {
        let start = Instant::now();
        match &self.ours {
            Some(pool) => {
                let mut conn = pool.acquire().await?;
                if self.setting.design == Design::Delayed {
                    let until = Instant::now() + Duration::from_nanos(200);
                    while Instant::now() < until {}
                }
                if statement {
                    DB::on_ours(&mut conn).await?;
                }
                drop(black_box(conn));
            }
            None => {
                let mut conn = self.raw.acquire().await?;
                if self.setting.design == Design::Naive {
                    drop(black_box(std::backtrace::Backtrace::force_capture()));
                }
                if statement {
                    DB::on_raw(&mut conn).await?;
                }
                drop(black_box(conn));
            }
        }
        Ok(start.elapsed())
    }

    /// Lets what follows a drop run, so that the next acquire finds the connection idle.
    pub(crate) async fn settle(&self) {
        // Read through sqlx: the same work for every design.
        while self.raw.num_idle() == 0 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn close(self) {
        self.raw.close().await;
    }
}

/// A database in memory.
pub(crate) fn sqlite() -> Result<Options<Sqlite>, sqlx::Error> {
    sqlx::sqlite::SqliteConnectOptions::from_str("sqlite::memory:")
}
