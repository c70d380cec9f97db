//! A primary and a replica, and which of them answers reads.
//!
//! Responsible for [`Replicated`] and for knowing whether the replica is there. Not responsible for
//! what runs where: the caller says whether it reads or writes. Nor for how far the replica lags.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, Database, Error};

use crate::Pool;

/// How often the replica is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take before the replica counts as away.
const LIMIT: Duration = Duration::from_secs(3);

/// A primary and a replica of it: [`read`](Self::read) and [`write`](Self::write).
///
/// Reads go to the replica while it is there, else to the primary. A task of its own asks the replica
/// once a second, on a session of its own beside the pool: no caller waits for that, and it stands in
/// no queue. The replica is away from the first question that fails, or that is not answered within
/// 3 s, until one is answered. It is not away because all connections of its pool are out, nor because
/// it lets nobody else in. What was asked of it before that is known fails or waits as its pool says,
/// so give that pool a short acquire timeout.
///
/// A write that is sent to the replica is refused by the server. What was just written may not be on
/// the replica yet: read it from [`write`](Self::write). Give both pools the same monitor and names of
/// their own, then one report shows both. Cheap to clone; the task ends with the last clone.
///
/// # Examples
/// ```no_run
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// use leaktrace::PgPool;
/// use leaktrace::kit::{PoolSettings, Replicated};
///
/// let primary: PgPool = PoolSettings::for_service("orders")?.connect().await?;
/// let replica: PgPool = PoolSettings::for_service("orders_replica")?.connect().await?;
/// let orders = Replicated::new(primary, replica);
///
/// let count: i64 = sqlx::query_scalar("SELECT count(*) FROM orders")
///     .fetch_one(orders.read())
///     .await?;
/// sqlx::query("DELETE FROM orders").execute(orders.write()).await?;
/// # Ok(())
/// # }
/// ```
pub struct Replicated<DB: Database> {
    both: Arc<Both<DB>>,
}

struct Both<DB: Database> {
    primary: Pool<DB>,
    replica: Pool<DB>,
    away: AtomicBool,
}

impl<DB: Database> Replicated<DB> {
    /// Reads go to `replica` from now on, and its task is started.
    ///
    /// # Panics
    /// Outside of a tokio runtime, as making a pool does.
    pub fn new(primary: Pool<DB>, replica: Pool<DB>) -> Self {
        let both = Arc::new(Both {
            primary,
            replica,
            away: AtomicBool::new(false),
        });
        tokio::spawn(watch(Arc::downgrade(&both)));
        Self { both }
    }

    /// For what only reads: the replica, or the primary while the replica is away.
    pub fn read(&self) -> &Pool<DB> {
        if self.is_replica_away() {
            return &self.both.primary;
        }
        &self.both.replica
    }

    /// For everything else: the primary.
    pub fn write(&self) -> &Pool<DB> {
        &self.both.primary
    }

    /// The replica, there or not: for its health, or to close it.
    pub fn replica(&self) -> &Pool<DB> {
        &self.both.replica
    }

    /// Whether the last question to the replica failed.
    pub fn is_replica_away(&self) -> bool {
        self.both.away.load(Ordering::Relaxed)
    }
}

impl<DB: Database> Clone for Replicated<DB> {
    fn clone(&self) -> Self {
        Self {
            both: Arc::clone(&self.both),
        }
    }
}

impl<DB: Database> fmt::Debug for Replicated<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicated")
            .field("primary", &self.both.primary)
            .field("replica", &self.both.replica)
            .field("away", &self.is_replica_away())
            .finish()
    }
}

/// Asks until nobody wants to know.
async fn watch<DB: Database>(both: Weak<Both<DB>>) {
    let mut session = None;
    loop {
        let Some(replica) = both.upgrade().map(|both| both.replica.clone()) else {
            return;
        };
        let asked = tokio::time::timeout(LIMIT, ask(&replica, &mut session)).await;
        let answer = asked.unwrap_or_else(|_| {
            // Half of an answer may still come.
            session = None;
            Err(format!(
                "no answer within {}",
                humantime::format_duration(LIMIT)
            ))
        });
        drop(replica);
        let Some(both) = both.upgrade() else {
            return;
        };
        both.heard(answer);
        drop(both);
        tokio::time::sleep(EVERY).await;
    }
}

/// Asks on the session of before, else on a new one.
async fn ask<DB: Database>(
    replica: &Pool<DB>,
    session: &mut Option<DB::Connection>,
) -> Result<(), String> {
    if replica.is_closed() {
        return Err("its pool is closed".to_string());
    }
    if let Some(conn) = session
        && conn.ping().await.is_ok()
    {
        return Ok(());
    }
    // Something in between may have cut the session: a new one tells.
    *session = None;
    let options = replica.connect_options();
    match options.connect().await {
        Ok(mut conn) => {
            conn.ping().await.map_err(|error| error.to_string())?;
            *session = Some(conn);
            Ok(())
        }
        Err(error) if is_full(&error) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// A server that has no room is there: PostgreSQL's and MySQL's code for it.
fn is_full(error: &Error) -> bool {
    let error = error.as_database_error();
    let code = error.and_then(|error| error.code());
    code.is_some_and(|code| code == "53300" || code == "08004")
}

impl<DB: Database> Both<DB> {
    fn heard(&self, answer: Result<(), String>) {
        let is_away = answer.is_err();
        if self.away.swap(is_away, Ordering::Relaxed) == is_away {
            return;
        }
        let (primary, replica) = (self.primary.name(), self.replica.name());
        match answer {
            Ok(()) => tracing::info!(
                target: "leaktrace::kit",
                pool = replica,
                "pool \"{replica}\": the replica is back, and reads go to it again",
            ),
            Err(error) => tracing::warn!(
                target: "leaktrace::kit",
                pool = replica,
                "pool \"{replica}\": the replica is away ({error}), and reads go to \"{primary}\"",
            ),
        }
    }
}
