//! A value that somebody set for a session, and that the next borrower would inherit.
//!
//! Responsible for the names of such variables, and for finding and resetting a value on a connection
//! that comes back. Not responsible for tenants: see `tenant`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Database, Error, Executor};

use crate::ConfigError;

const NAMES: &str =
    "a name of your own with a dot in it, of letters, digits and _, such as app.tenant";

/// Checks the name of a variable of one's own, which from then on needs no quotes.
///
/// # Errors
/// When PostgreSQL would not take it, or it is one of PostgreSQL's own.
pub(super) fn check_variable(origin: &'static str, name: &str) -> Result<(), ConfigError> {
    let is_word = |word: &str| {
        let mut chars = word.chars();
        let first = chars.next();
        first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if name.contains('.') && name.split('.').all(is_word) {
        return Ok(());
    }
    Err(ConfigError::new(origin, name, NAMES))
}

/// Finds and resets a variable on connections that come back.
#[derive(Debug)]
pub(super) struct Residue {
    pool: String,
    variable: String,
    /// Resets it where it is set, and answers a row then.
    sql: String,
    lines: Lines,
}

impl Residue {
    /// The name of the variable was checked.
    pub(super) fn of(pool: String, variable: &str) -> Self {
        let sql = format!(
            "SELECT set_config('{variable}', '', false) \
             WHERE current_setting('{variable}', true) <> ''"
        );
        Self {
            pool,
            variable: variable.to_string(),
            sql,
            lines: Lines::default(),
        }
    }

    /// Asks, and resets, in one round trip and without a prepared statement.
    pub(super) async fn reset<DB: Database>(&self, conn: &mut DB::Connection) -> Result<(), Error>
    where
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    {
        let sql = AssertSqlSafe(self.sql.clone());
        if sqlx::raw_sql(sql).fetch_optional(conn).await?.is_some() {
            say_found(&self.lines, &self.pool, &self.variable, "came back");
        }
        Ok(())
    }
}

/// As many lines as are said in a minute; the rest are counted. Whoever forgets `LOCAL` does so in each
/// request.
const LINES: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// How much was said of late.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Minute>);

#[derive(Debug, Default)]
struct Minute {
    since: Option<Instant>,
    said: u32,
    counted: u64,
}

impl Lines {
    /// Whether a line may be said: how many were counted in place of one before, and whether it is
    /// the last one for now.
    fn admit(&self, now: Instant) -> Option<(u64, bool)> {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since| now.saturating_duration_since(since) >= MINUTE;
        if minute.since.is_none_or(is_over) {
            minute.since = Some(now);
            minute.said = 0;
        }
        if minute.said >= LINES {
            minute.counted += 1;
            return None;
        }
        minute.said += 1;
        Some((std::mem::take(&mut minute.counted), minute.said == LINES))
    }
}

/// The value is not shown: it names a customer.
pub(super) fn say_found(lines: &Lines, pool: &str, variable: &str, when: &str) {
    let Some((counted, is_last)) = lines.admit(Instant::now()) else {
        return;
    };
    let mut more = String::new();
    if counted > 0 {
        more += &format!("; {counted} more since the last line");
    }
    if is_last {
        more += "; more of them are counted for a minute";
    }
    tracing::warn!(
        target: "leaktrace::kit",
        pool,
        variable,
        "pool \"{pool}\": a connection {when} with {variable} set for its session, and it was reset: \
         somebody sent SET, which outlives the transaction; TenantPool::begin and SET LOCAL do not{more}",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_ten_lines_and_the_next_one_says_how_many_there_were() {
        let (lines, start) = (Lines::default(), Instant::now());
        let said: Vec<_> = (0..30).filter_map(|_| lines.admit(start)).collect();
        assert_eq!(said.len(), 10);
        assert_eq!((said[0], said[9]), ((0, false), (0, true)));
        assert_eq!(lines.admit(start + MINUTE / 2), None);
        assert_eq!(lines.admit(start + MINUTE), Some((21, false)));
        assert_eq!(lines.admit(start + MINUTE), Some((0, false)));
    }
}
