//! What PostgreSQL says of its backends.
//!
//! Responsible for the questions and for reading the answers. What a user without privilege gets,
//! NULL or `<insufficient privilege>`, is not known, never a guess.
//!
//! Columns: <https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW>

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{Database, Error};

use super::testify::{list, rows};
use crate::registry::{Blocker, Said, ServerState, Testimony};
use crate::site::sql::{Dialect, mask_sql_for};
use crate::site::text::escape_text;

/// How old the backend is that answers, in milliseconds.
pub(super) const AGE: &str = "SELECT (extract(epoch FROM clock_timestamp() - backend_start) * 1000)::int8 \
     FROM pg_stat_activity WHERE pid = pg_backend_pid() /* leaktrace */";

/// Asks about these backends, and about who blocks them.
///
/// `pg_blocking_pids` stops the lock manager for a moment, so only what waits for a lock is asked for.
pub(super) async fn ask<DB: Database>(
    conn: &mut DB::Connection,
    backends: &[i64],
) -> Result<Vec<Said>, Error> {
    let sql = format!(
        "SELECT pid::text, state::text, \
         (extract(epoch FROM clock_timestamp() - CASE state WHEN 'active' THEN query_start ELSE state_change END) * 1000)::int8::text, \
         (extract(epoch FROM clock_timestamp() - backend_start) * 1000)::int8::text, \
         wait_event_type::text, wait_event::text, query::text, \
         CASE wait_event_type WHEN 'Lock' THEN array_to_string(pg_blocking_pids(pid), ',') END::text \
         FROM pg_stat_activity WHERE pid IN ({}) AND usename = current_user \
         AND datname = current_database() AND backend_type = 'client backend' /* leaktrace */",
        list(backends)
    );
    let mut said: Vec<Said> = rows::<DB>(conn, sql)
        .await?
        .iter()
        .filter_map(read)
        .collect();
    let mut blockers: Vec<i64> = said
        .iter()
        .flat_map(|said| &said.testimony.blocked_by)
        .map(|blocker| blocker.backend)
        .collect();
    blockers.sort_unstable();
    blockers.dedup();
    if blockers.is_empty() {
        return Ok(said);
    }
    let sql = format!(
        "SELECT pid::text, usename::text, application_name::text, state::text, query::text \
         FROM pg_stat_activity WHERE pid IN ({}) /* leaktrace */",
        list(&blockers)
    );
    let known: HashMap<i64, Blocker> = rows::<DB>(conn, sql)
        .await?
        .iter()
        .filter_map(who)
        .map(|blocker| (blocker.backend, blocker))
        .collect();
    for blocker in said
        .iter_mut()
        .flat_map(|said| &mut said.testimony.blocked_by)
    {
        if let Some(known) = known.get(&blocker.backend) {
            blocker.clone_from(known);
        }
    }
    Ok(said)
}

fn read(row: &Vec<Option<String>>) -> Option<Said> {
    let [
        pid,
        state,
        state_ms,
        age_ms,
        wait_type,
        wait,
        query,
        blockers,
    ] = row.as_slice()
    else {
        return None;
    };
    let millis = |text: &Option<String>| {
        let millis: i64 = text.as_ref()?.parse().ok()?;
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
    };
    let state = match state.as_deref()? {
        "active" | "fastpath function call" => ServerState::InFlight,
        "idle" => ServerState::Idle,
        "idle in transaction" | "idle in transaction (aborted)" => ServerState::IdleInTransaction,
        // The server does not track it.
        _ => return None,
    };
    let waits = state == ServerState::InFlight;
    Some(Said {
        backend: pid.as_ref()?.parse().ok()?,
        age: millis(age_ms),
        testimony: Testimony {
            state,
            state_for: millis(state_ms)?,
            asked_ago: Duration::ZERO,
            sql: shown(query.as_deref()),
            waits_for: wait_type
                .as_deref()
                .filter(|_| waits)
                .map(|kind| format!("{kind} {}", wait.as_deref().unwrap_or_default()))
                .map(|text| escape_text(text.trim_end(), 100).into_owned()),
            blocked_by: blockers
                .as_deref()
                .unwrap_or_default()
                .split(',')
                // Zero stands for a prepared transaction: nobody's backend.
                .filter_map(|pid| pid.parse().ok().filter(|pid| *pid != 0))
                .map(Blocker::unknown)
                .collect(),
        },
    })
}

fn who(row: &Vec<Option<String>>) -> Option<Blocker> {
    let [pid, user, application, state, query] = row.as_slice() else {
        return None;
    };
    let name = |text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty())?;
        Some(escape_text(text, 64).into_owned())
    };
    Some(Blocker {
        user: name(user),
        application: name(application),
        // Without a state we are not told its statement either.
        sql: state.as_ref().and_then(|_| shown(query.as_deref())),
        ..Blocker::unknown(pid.as_ref()?.parse().ok()?)
    })
}

fn shown(query: Option<&str>) -> Option<String> {
    query
        .filter(|query| !query.is_empty() && *query != "<insufficient privilege>")
        .map(|query| mask_sql_for(query, Dialect::Postgres))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[Option<&str>]) -> Vec<Option<String>> {
        columns.iter().map(|text| text.map(String::from)).collect()
    }

    #[test]
    fn what_waits_for_a_lock_has_blockers() {
        let said = read(&row(&[
            Some("4711"),
            Some("active"),
            Some("3200"),
            Some("60000"),
            Some("Lock"),
            Some("transactionid"),
            Some("UPDATE t SET a = 5"),
            Some("4712,0"),
        ]))
        .expect("a state");
        assert_eq!(said.backend, 4711);
        let testimony = said.testimony;
        assert_eq!(testimony.state, ServerState::InFlight);
        assert_eq!(testimony.state_for, Duration::from_millis(3200));
        assert_eq!(testimony.waits_for.as_deref(), Some("Lock transactionid"));
        assert_eq!(testimony.sql.as_deref(), Some("UPDATE t SET a = ?"));
        assert_eq!(testimony.blocked_by, [Blocker::unknown(4712)]);
    }

    #[test]
    fn what_a_user_may_not_see_is_not_known() {
        let hidden = Some("<insufficient privilege>");
        let nothing = row(&[Some("4711"), None, None, None, None, None, hidden, None]);
        assert!(read(&nothing).is_none());
        let untracked = [
            Some("4711"),
            Some("disabled"),
            None,
            None,
            None,
            None,
            None,
            None,
        ];
        assert!(read(&row(&untracked)).is_none());
        let blocker = who(&row(&[
            Some("4712"),
            Some("other"),
            Some("psql"),
            None,
            hidden,
        ]));
        let blocker = blocker.expect("a pid");
        assert_eq!(blocker.sql, None);
        assert_eq!(
            blocker.to_string(),
            "pid 4712, not of this pool, user other, application psql"
        );
    }
}
