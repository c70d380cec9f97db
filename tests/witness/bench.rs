//! A watched pool on a real server, all that is said of it, and what each server needs to be told in
//! its own words.

use std::time::Duration;

use leaktrace::{Config, Detail, Finding, Holder, Kind, Monitor, Pool, PoolOptions};
use sqlx::Database;

use crate::support::db::with_parameter;
use crate::support::{Capture, Db, TestDb, eventually};

/// Longer than any test needs on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A server is asked this much ahead of the threshold, or sooner: also a busy one has answered by then.
pub(crate) const THRESHOLD: Duration = Duration::from_secs(4);

/// Two rows to lock.
pub(crate) const SEATS: &str = "CREATE TABLE seats (id INT PRIMARY KEY, taken INT NOT NULL);
     INSERT INTO seats VALUES (1, 0), (2, 0)";

/// What each server says in its own words.
pub(crate) trait Server: Database {
    const DB: Db;
    /// Runs for much longer than the threshold.
    const LONG: &'static str;
    /// How it is shown.
    const LONG_SHOWN: &'static str;
    /// The parameter of a URL.
    const WITHOUT_TLS: (&'static str, &'static str);
    /// Asks a connection for its own backend.
    const OWN_PID: &'static str;
    /// Whether the last statement of an idle backend is told.
    const TELLS_LAST_SQL: bool;
}

impl Server for sqlx::Postgres {
    const DB: Db = Db::Postgres;
    const LONG: &'static str = "SELECT pg_sleep(9.25)";
    const LONG_SHOWN: &'static str = "SELECT pg_sleep(?)";
    const WITHOUT_TLS: (&'static str, &'static str) = ("sslmode", "disable");
    const OWN_PID: &'static str = "SELECT pg_backend_pid()::int8";
    const TELLS_LAST_SQL: bool = true;
}

impl Server for sqlx::MySql {
    const DB: Db = Db::MySql;
    const LONG: &'static str = "SELECT SLEEP(9.25)";
    const LONG_SHOWN: &'static str = "SELECT SLEEP(?)";
    const WITHOUT_TLS: (&'static str, &'static str) = ("ssl-mode", "DISABLED");
    const OWN_PID: &'static str = "SELECT CAST(CONNECTION_ID() AS SIGNED)";
    const TELLS_LAST_SQL: bool = false;
}

/// The same tests on both servers, with `DB` and `Raw` for their types.
macro_rules! on_each_server {
    (@ $module:ident, $db:ty, $raw:ty, $($item:item)*) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            #[allow(dead_code)]
            type DB = $db;
            #[allow(dead_code)]
            type Raw = $raw;
            $($item)*
        }
    };
    ($($item:item)*) => {
        on_each_server!(@ postgres, sqlx::Postgres, sqlx::PgConnection, $($item)*);
        on_each_server!(@ mysql, sqlx::MySql, sqlx::MySqlConnection, $($item)*);
    };
}
pub(crate) use on_each_server;

/// Reports what is older than the threshold.
pub(crate) fn loud() -> Config {
    Config::default()
        .detail(Detail::Backtrace)
        .threshold(THRESHOLD)
        .idle_in_transaction(Duration::from_secs(2))
}

/// A pool called `orders`, and what is said of it.
pub(crate) struct Bench<DB: Database> {
    pub(crate) pool: Pool<DB>,
    pub(crate) monitor: Monitor,
    pub(crate) findings: Capture<Finding>,
}

impl<DB: Server> Bench<DB> {
    pub(crate) async fn at(url: &str, config: Config, max: u32) -> Self {
        Self::with(url, config, PoolOptions::new().max_connections(max)).await
    }

    pub(crate) async fn with(url: &str, config: Config, options: PoolOptions<DB>) -> Self {
        let monitor = Monitor::new(config);
        let findings = Capture::new();
        let kept = findings.clone();
        monitor.add_sink(move |finding: &Finding| kept.push(finding.clone()));
        let pool = options.monitor(&monitor).name("orders");
        // A handshake more would be most of the work of a side connection in a debug build.
        let plain = with_parameter(url, DB::WITHOUT_TLS.0, DB::WITHOUT_TLS.1);
        let pool = pool.connect(&plain).await.expect("a pool");
        Self {
            pool,
            monitor,
            findings,
        }
    }

    pub(crate) async fn on(test: &TestDb) -> Self {
        Self::at(&test.url, loud(), 4).await
    }

    /// The first finding about holders.
    #[track_caller]
    pub(crate) fn finding(&self) -> impl Future<Output = Finding> {
        self.findings
            .wait_for("a finding", PATIENCE, |all| all.first().cloned())
    }

    /// The first finding about a holder that was taken there.
    #[track_caller]
    pub(crate) fn finding_at(&self, place: String) -> impl Future<Output = Finding> {
        let what = "a finding about that line";
        self.findings.wait_for(what, PATIENCE, move |all| {
            all.iter()
                .find(|finding| {
                    let oldest = finding.holders.first();
                    let line = oldest.and_then(|oldest| oldest.acquired_by.as_ref());
                    line.is_some_and(|line| line.to_string().starts_with(&place))
                })
                .cloned()
        })
    }

    /// Waits until the server was asked, and answers what is known of the only holder.
    #[track_caller]
    pub(crate) fn told(&self) -> impl Future<Output = Holder> {
        let pool = self.pool.clone();
        eventually("a testimony", PATIENCE, async move || {
            let holders = pool.holders();
            match holders.as_slice() {
                [holder] if holder.server.is_some() => Ok(holder.clone()),
                others => Err(format!("{others:?}")),
            }
        })
    }
}

/// What is known of the oldest holder of a finding.
#[track_caller]
pub(crate) fn oldest(finding: &Finding) -> &Holder {
    finding.holders.first().expect("a holder")
}

/// The findings of that kind.
pub(crate) fn of(findings: &Capture<Finding>, kind: Kind) -> Vec<Finding> {
    let mut all = findings.all();
    all.retain(|finding| finding.kind == kind);
    all
}

/// Fails, with the whole finding, when a word is missing.
#[track_caller]
pub(crate) fn says(finding: &Finding, words: &[&str]) {
    let text = finding.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

/// Fails, with the whole finding, when a word is there.
#[track_caller]
pub(crate) fn never_says(finding: &Finding, words: &[&str]) {
    let text = finding.to_string();
    for word in words {
        assert!(!text.contains(word), "{word:?} is in:\n{text}");
    }
}

/// `tests/witness/x.rs:12:` of the first line of this file with that code.
macro_rules! at {
    ($code:literal) => {
        $crate::bench::line_of(
            file!(),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", file!())),
            $code,
        )
    };
}
pub(crate) use at;

#[track_caller]
pub(crate) fn line_of(file: &str, source: &str, code: &str) -> String {
    let is_it = |line: &str| line.contains(code) && !line.contains("at!(");
    let index = source.lines().position(is_it).expect("the code is here");
    format!("{file}:{}:", index + 1)
}
