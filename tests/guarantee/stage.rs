//! What every test here needs: a pool of one connection, raw or watched, a table, an observer, and
//! futures that are dropped at a chosen poll.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use leaktrace::{Config, Finding, Monitor};
use sqlx::Database;

use crate::support::{Capture, Db, Observer, Proxy, TestDb, database};

pub(crate) const LONG: Duration = Duration::from_secs(20);

/// How often a test tries anew to cut something.
pub(crate) const ROUNDS: usize = 100;

/// Long enough that an answer never comes before the next poll.
const DELAY: Duration = Duration::from_millis(3);

/// A database with an empty table `t (id INT)`, and somebody who watches it.
pub(crate) struct Stage {
    pub(crate) test: TestDb,
    pub(crate) observer: Observer,
    /// What pools connect to: through a network that is slow enough to cut in flight.
    pub(crate) url: String,
    pub(crate) proxy: Option<Proxy>,
}

impl Stage {
    pub(crate) async fn set(db: Db) -> Option<Self> {
        Self::set_behind(db, DELAY).await
    }

    /// Behind a network with that delay. Without any, a server at rest answers before the client has
    /// looked for its answer: nothing is ever in flight.
    pub(crate) async fn set_behind(db: Db, delay: Duration) -> Option<Self> {
        let mut stage = Self::set_near(db).await?;
        stage.proxy = db.server_url().map(|_| Proxy::start(&stage.test.url));
        if let Some(proxy) = &stage.proxy {
            proxy.delay(delay);
            stage.url = proxy.url(&stage.test.url);
        }
        Some(stage)
    }

    async fn set_near(db: Db) -> Option<Self> {
        let test = database(db).await?;
        let mut observer = Observer::watch(&test).await;
        observer.execute("CREATE TABLE t (id INT)").await;
        Some(Self {
            url: test.url.clone(),
            test,
            observer,
            proxy: None,
        })
    }

    pub(crate) async fn rows(&mut self) -> i64 {
        self.observer.rows("t").await
    }
}

/// sqlx's pool of that many connections, kept for as long as the test runs.
pub(crate) async fn raw<DB: Database>(stage: &Stage, max: u32) -> sqlx::Pool<DB> {
    sqlx::pool::PoolOptions::new()
        .max_connections(max)
        .acquire_timeout(LONG)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect(&stage.url)
        .await
        .expect("sqlx's pool")
}

/// A watched pool, and what its monitor finds.
pub(crate) async fn ours<DB: Database>(
    stage: &Stage,
    max: u32,
) -> (leaktrace::Pool<DB>, Capture<Finding>) {
    ours_with(stage, max, Config::default()).await
}

/// With a limit for returns.
pub(crate) async fn ours_with_limit<DB: Database>(
    stage: &Stage,
    max: u32,
    limit: Duration,
) -> (leaktrace::Pool<DB>, Capture<Finding>) {
    ours_opened(stage, max, Config::default(), Some(limit)).await
}

/// With these settings; each finding is said.
pub(crate) async fn ours_with<DB: Database>(
    stage: &Stage,
    max: u32,
    config: Config,
) -> (leaktrace::Pool<DB>, Capture<Finding>) {
    ours_opened(stage, max, config.report_interval(Duration::ZERO), None).await
}

pub(crate) async fn ours_opened<DB: Database>(
    stage: &Stage,
    max: u32,
    config: Config,
    limit: Option<Duration>,
) -> (leaktrace::Pool<DB>, Capture<Finding>) {
    ours_made_with(stage, max, config, limit, leaktrace::PoolOptions::new()).await
}

/// With these options besides.
pub(crate) async fn ours_made_with<DB: Database>(
    stage: &Stage,
    max: u32,
    config: Config,
    limit: Option<Duration>,
    options: leaktrace::PoolOptions<DB>,
) -> (leaktrace::Pool<DB>, Capture<Finding>) {
    let monitor = Monitor::new(config);
    let findings = Capture::new();
    let sink = findings.clone();
    monitor.add_sink(move |finding: &Finding| sink.push(finding.clone()));
    let mut options = options
        .monitor(&monitor)
        .name("orders")
        .max_connections(max)
        .acquire_timeout(LONG)
        .idle_timeout(None)
        .max_lifetime(None);
    if let Some(limit) = limit {
        options = options.return_limit(limit);
    }
    let pool = options.connect(&stage.url).await.expect("our pool");
    (pool, findings)
}

/// Polls the future that many times, then drops it. `None`: it was not ready by then.
pub(crate) async fn cut<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // Nothing else polls it again: the cut comes before its next poll.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Whether the next borrower of the pool's only connection gets a clean one: what it writes, outside
/// of any transaction, everyone can see at once.
macro_rules! next_borrower_is_clean {
    ($pool:expr, $stage:expr) => {{
        // First the connection: until it is granted, what was cut may still take effect.
        let mut conn = $pool.acquire().await.expect("a connection");
        let before = $stage.rows().await;
        let insert = sqlx::query("INSERT INTO t VALUES (1)");
        let written = insert.execute(&mut *conn).await;
        let after = $stage.rows().await;
        drop(conn);
        written.is_ok() && after == before + 1
    }};
}

/// Ends whatever is open on raw sqlx's only connection, so that a loop can go on.
macro_rules! wipe {
    ($pool:expr) => {{
        let _ = sqlx::raw_sql("ROLLBACK").execute(&$pool).await;
    }};
}

/// Cuts `$future` at its 1st, 2nd, ... poll until it completes; answers how many cuts there were and
/// after how many of them the next borrower was not clean.
macro_rules! cut_everywhere {
    ($pool:expr, $stage:expr, $future:expr) => {{
        let (mut cuts, mut dirty) = (0, 0);
        // SQLite's thread may answer before the next poll: then there is nothing to cut this time.
        for _ in 0..crate::stage::ROUNDS {
            for polls in 1..500 {
                let output = crate::stage::cut($future, polls).await;
                let complete = output.is_some();
                drop(output);
                if !next_borrower_is_clean!($pool, $stage) {
                    dirty += 1;
                }
                wipe!($pool);
                crate::support::eventually("an idle connection", crate::stage::LONG, async || {
                    $pool.num_idle() == 1
                })
                .await;
                if complete {
                    break;
                }
                cuts += 1;
            }
            if cuts > 0 {
                break;
            }
        }
        (cuts, dirty)
    }};
}

/// A test per database, each in its own function: `on_each! { name [Postgres, Sqlite] body }`, where
/// `body!(DB, stage)` is a macro.
macro_rules! on_each {
    ($($name:ident [$($db:ident),+] $body:ident;)+) => {
        $(mod $name {
            use super::*;
            #[allow(unused_imports)]
            use sqlx::Acquire as _;
            $(on_one!($name, $db, $body);)+
        })+
    };
}

macro_rules! on_one {
    ($name:ident, Postgres, $body:ident) => { on_one!(@ postgres, Postgres, sqlx::Postgres, $body); };
    ($name:ident, MySql, $body:ident) => { on_one!(@ mysql, MySql, sqlx::MySql, $body); };
    ($name:ident, Sqlite, $body:ident) => { on_one!(@ sqlite, Sqlite, sqlx::Sqlite, $body); };
    ($name:ident, Any, $body:ident) => { on_one!(@ any, Any, sqlx::Any, $body); };
    (@ $test:ident, $db:ident, $sqlx:ty, $body:ident) => {
        #[tokio::test]
        async fn $test() {
            use crate::support::Db;
            #[allow(unused_mut)]
            let Some(mut stage) = crate::stage::Stage::set(Db::$db).await else { return };
            $body!($sqlx, stage);
        }
    };
}
