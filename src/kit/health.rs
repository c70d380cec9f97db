//! Whether the database answers, asked without making things worse.
//!
//! Responsible for [`Health`] and for its limits. Not responsible for why a pool is exhausted: the
//! findings tell that.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use sqlx::{ConnectOptions, Connection, Database, Error};

use super::status::PoolWords;
use crate::{Holder, HolderId, Pool, PoolStatus};

/// What [`Pool::health`] found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The database answered in time, or the pool is [busy](Self::busy).
    pub ok: bool,
    /// All connections are held, and they come back: the database answers others, and was not asked.
    pub busy: bool,
    /// How long that took.
    #[serde(rename = "latency_ms", serialize_with = "millis")]
    pub latency: Duration,
    /// Why it is not ok: what the server or the driver said, or who holds all connections.
    pub error: Option<String>,
    /// The pool at that moment.
    pub status: PoolWords,
}

fn millis<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_micros() as f64 / 1_000.0)
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.ok, self.busy) {
            (true, false) => "ok",
            (true, true) => "busy",
            (false, _) => "not ok",
        };
        write!(f, "{word} after {:.1?}", self.latency)?;
        if let Some(error) = &self.error {
            write!(f, ": {error}")?;
        }
        write!(f, " ({})", self.status)
    }
}

/// How long [`Pool::health`] asks.
const LIMIT: Duration = Duration::from_secs(1);
/// A full pool to which a connection came back within this time, while somebody waited, is not stuck.
const SERVED: Duration = Duration::from_secs(1);
/// How often, and after how much time each, a full pool is looked at for one that comes back.
const LOOKS: (u32, Duration) = (3, Duration::from_millis(5));
/// How many lines of holders an answer names.
const LINES: usize = 3;

impl<DB: Database> Pool<DB> {
    /// Asks the database whether it is there, for at most 1 s.
    ///
    /// Never stands in line for a connection: an idle one is asked; with none idle and room left, one
    /// beside the pool. With all held, it asks nobody, and looks for 15 ms whether they come back: where one
    /// does, or did within the last second while somebody waited, the pool is [busy](Health::busy) and
    /// `ok`. One that is stuck is `ok: false`, with the lines that hold its connections.
    ///
    /// # Cost
    /// One round trip. Without an idle connection, a session of the server for its time.
    pub async fn health(&self) -> Health {
        self.health_within(LIMIT).await
    }

    /// As [`health`](Self::health), with a limit of your own.
    pub async fn health_within(&self, limit: Duration) -> Health {
        let start = Instant::now();
        let answer = match tokio::time::timeout(limit, ask(self)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!(
                "no answer within {}",
                humantime::format_duration(limit)
            )),
        };
        Health {
            ok: answer.is_ok(),
            busy: answer == Ok(Found::Busy),
            latency: start.elapsed(),
            error: answer.err(),
            status: self.words(),
        }
    }
}

/// What is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Answers,
    Busy,
}

async fn ask<DB: Database>(pool: &Pool<DB>) -> Result<Found, String> {
    let text = |error: Error| error.to_string();
    if pool.is_closed() {
        return Err("the pool is closed".to_string());
    }
    let labeled = pool.labeled("health").unreported();
    let (looks, pause) = LOOKS;
    let mut before: Option<Vec<HolderId>> = None;
    for look in 0..=looks {
        if let Some(mut conn) = labeled.try_acquire() {
            if conn.ping().await.is_ok() {
                return Ok(Found::Answers);
            }
            // It was idle for long, and may have been cut by something in between. A new one tells.
            conn.close_on_drop();
            break;
        }
        let status = pool.status();
        if status.size < status.max || status.idle > 0 {
            break;
        }
        let now = pool.holders();
        let is_back = |holder: &HolderId| now.iter().all(|held| held.id != *holder);
        let served = pool.served_ago().is_some_and(|ago| ago < SERVED);
        if served || before.iter().flatten().any(is_back) {
            return Ok(Found::Busy);
        }
        if look == looks {
            return Err(who_holds_all(&status, &now));
        }
        before.get_or_insert_with(|| now.iter().map(|holder| holder.id).collect());
        tokio::time::sleep(pause).await;
    }
    let options = pool.connect_options();
    let mut conn = options.connect().await.map_err(text)?;
    conn.ping().await.map_err(text)?;
    conn.close().await.map_err(text)?;
    Ok(Found::Answers)
}

/// When no connection can be had: by which lines they are held.
fn who_holds_all(status: &PoolStatus, holders: &[Holder]) -> String {
    let out = status.held + status.returning;
    let mut lines: BTreeMap<String, (usize, Duration)> = BTreeMap::new();
    for holder in holders {
        let line = lines.entry(place(holder)).or_default();
        *line = (line.0 + 1, line.1.max(holder.held_for));
    }
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_by_key(|(_, (count, oldest))| std::cmp::Reverse((*count, *oldest)));
    let mut text = format!(
        "no connection is free: {out} of {} are held, {} wait",
        status.max, status.waiting
    );
    for (at, (line, (count, oldest))) in lines.iter().take(LINES).enumerate() {
        let sign = if at == 0 { ':' } else { ',' };
        text += &format!("{sign} {count} × {line} (longest {oldest:.1?})");
    }
    if lines.len() > LINES {
        text += &format!(", and {} more lines", lines.len() - LINES);
    }
    text
}

/// The line that checked it out, or what else tells where it came from.
fn place(holder: &Holder) -> String {
    let line = holder.acquired_by.as_ref().map(ToString::to_string);
    line.or_else(|| holder.last_sql.clone())
        .or_else(|| holder.label.clone())
        .unwrap_or_else(|| "a statement on the pool".to_string())
}
