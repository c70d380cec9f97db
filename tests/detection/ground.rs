//! What every test here stands on: a watched pool on a fresh database, and all that is said of it.
//!
//! Responsible for making them and for the few statements that each database writes in its own way.

// Other test binaries take it in too, and use a part of it.
#![allow(dead_code, unused_imports, unused_macros)]

use std::time::Duration;

use leaktrace::{Config, Detail, Finding, Holder, Kind, Monitor, Pool, PoolOptions};
use sqlx::Database;

use crate::support::{Capture, Db, TestDb, database, eventually};

/// Long enough for a loaded machine; what is waited for comes much sooner.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What each database says in its own words.
pub(crate) trait Ground: Database {
    const DB: Db;
    /// Runs for one and a half seconds or more on the server, not in the client.
    const SLOW: &'static str;
    /// How [`Ground::SLOW`] begins when it is shown.
    const SLOW_SHOWN: &'static str;
    /// Runs for about four seconds.
    const FOUR_SECONDS: &'static str;
}

impl Ground for sqlx::Postgres {
    const DB: Db = Db::Postgres;
    const SLOW: &'static str = "SELECT pg_sleep(1.5)";
    const SLOW_SHOWN: &'static str = "SELECT pg_sleep(";
    const FOUR_SECONDS: &'static str = "SELECT pg_sleep(4)";
}

impl Ground for sqlx::MySql {
    const DB: Db = Db::MySql;
    const SLOW: &'static str = "SELECT SLEEP(1.5)";
    const SLOW_SHOWN: &'static str = "SELECT SLEEP(";
    const FOUR_SECONDS: &'static str = "SELECT SLEEP(4)";
}

// SQLite has no sleep: it counts. How long that takes depends on the machine; no test relies on
// more than "longer than a second or so", and waits for what it needs.
impl Ground for sqlx::Sqlite {
    const DB: Db = Db::Sqlite;
    const SLOW: &'static str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000) SELECT count(*) FROM n";
    const SLOW_SHOWN: &'static str = "WITH RECURSIVE n(i) AS (";
    const FOUR_SECONDS: &'static str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000000) SELECT count(*) FROM n";
}

/// A statement that ends at once; the value in it must never be shown.
pub(crate) const QUICK: &str = "SELECT 4711";
pub(crate) const QUICK_SHOWN: &str = "SELECT ?";
/// A statement that every database refuses.
pub(crate) const WRONG: &str = "SELECT 1 FROM no_such_table";

/// The same tests on each of the three databases, with `DB` and `Raw` for its types.
///
/// The tests are handed over as tokens, so that their lines stay theirs.
macro_rules! on_each_database {
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
        on_each_database!(@ postgres, sqlx::Postgres, sqlx::PgConnection, $($item)*);
        on_each_database!(@ mysql, sqlx::MySql, sqlx::MySqlConnection, $($item)*);
        on_each_database!(@ sqlite, sqlx::Sqlite, sqlx::SqliteConnection, $($item)*);
    };
}
pub(crate) use on_each_database;

/// Reports whatever is older than a second.
pub(crate) fn loud() -> Config {
    Config::default()
        .detail(Detail::Backtrace)
        .threshold(SECOND)
        .idle_in_transaction(SECOND)
}

/// Records everything and never has a reason to speak.
pub(crate) fn silent() -> Config {
    Config::default()
        .detail(Detail::Backtrace)
        .threshold(Duration::from_secs(3600))
        .idle_in_transaction(None)
}

/// A pool called `orders`, its monitor, and what the monitor says.
pub(crate) struct Watched<DB: Database> {
    pub(crate) pool: Pool<DB>,
    pub(crate) monitor: Monitor,
    pub(crate) findings: Capture<Finding>,
    /// Dropped last.
    pub(crate) test: TestDb,
}

/// `None` where there is no server for it.
pub(crate) async fn watched<DB: Ground>(config: Config, max: u32) -> Option<Watched<DB>> {
    let test = database(DB::DB).await?;
    let monitor = Monitor::new(config);
    let findings = listen(&monitor);
    let pool = PoolOptions::<DB>::new()
        .monitor(&monitor)
        .name("orders")
        .max_connections(max)
        .connect(&test.url)
        .await
        .expect("a pool on a fresh database");
    Some(Watched {
        pool,
        monitor,
        findings,
        test,
    })
}

/// On SQLite, which is always there.
pub(crate) async fn sqlite(config: Config, max: u32) -> Watched<sqlx::Sqlite> {
    watched(config, max).await.expect("SQLite needs no server")
}

/// Everything that the monitor says from now on.
pub(crate) fn listen(monitor: &Monitor) -> Capture<Finding> {
    let findings = Capture::new();
    let sink = findings.clone();
    monitor.add_sink(move |finding: &Finding| sink.push(finding.clone()));
    findings
}

/// Waits until every holder is at least that old.
#[track_caller]
pub(crate) fn aged<DB: Database>(pool: &Pool<DB>, age: Duration) -> impl Future<Output = ()> {
    let pool = pool.clone();
    eventually("holders of some age", PATIENCE, async move || {
        let ages: Vec<_> = pool.holders().iter().map(|h| h.held_for).collect();
        ages.iter()
            .all(|held| *held > age)
            .then_some(())
            .ok_or(ages)
    })
}

/// What is seen of one holder: activity, line of the last use, last statement, uses.
pub(crate) type Seen = (String, Option<u32>, Option<String>, u32);

pub(crate) fn seen(activity: &str, line: Option<u32>, sql: Option<&str>, uses: u32) -> Seen {
    (activity.into(), line, sql.map(String::from), uses)
}

impl<DB: Database> Watched<DB> {
    /// Waits until the pool has one holder and that is seen of it.
    #[track_caller]
    pub(crate) fn sees(&self, wanted: Seen) -> impl Future<Output = Holder> {
        let pool = self.pool.clone();
        let what = format!("{wanted:?}");
        let caller = std::panic::Location::caller();
        async move {
            eventually(&format!("{what} ({caller})"), PATIENCE, async || match pool
                .holders()
                .as_slice()
            {
                [holder] if what_is_seen(holder) == wanted => Ok(holder.clone()),
                [holder] => Err(format!("{:?}", what_is_seen(holder))),
                others => Err(format!("{} holders", others.len())),
            })
            .await
        }
    }

    /// Waits for the first finding of that kind.
    #[track_caller]
    pub(crate) fn finding(&self, kind: Kind) -> impl Future<Output = Finding> {
        self.findings
            .wait_for(kind.as_str(), PATIENCE, move |all| of(all, kind).pop())
    }

    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.findings.all().iter().map(|found| found.kind).collect()
    }

    /// Waits until every connection is back.
    #[track_caller]
    pub(crate) fn all_back(&self) -> impl Future<Output = ()> {
        let pool = self.pool.clone();
        eventually("every connection back", PATIENCE, async move || {
            let status = pool.status();
            (status.held == 0 && status.returning == 0)
                .then_some(())
                .ok_or(status)
        })
    }
}

fn what_is_seen(holder: &Holder) -> Seen {
    // A long statement is shown by its beginning.
    let sql = holder.last_sql.as_deref().map(|sql| {
        let end = sql.find('(').map_or(sql.len(), |at| at + 1);
        sql[..end].to_string()
    });
    let sql = sql.map(|sql| match sql.starts_with("WITH") {
        true => "WITH RECURSIVE n(i) AS (".to_string(),
        false => sql,
    });
    seen(
        &holder.activity.to_string(),
        holder.last_used_by.as_ref().map(|place| {
            assert!(place.file().starts_with("tests/"), "{place}");
            place.line()
        }),
        sql.as_deref(),
        holder.uses,
    )
}

/// The findings of that kind, the first one last.
pub(crate) fn of(all: &[Finding], kind: Kind) -> Vec<Finding> {
    let found = all.iter().rev().filter(|found| found.kind == kind);
    found.cloned().collect()
}
