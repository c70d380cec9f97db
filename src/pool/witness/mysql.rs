//! What MariaDB says of its threads.
//!
//! Responsible for the questions and for reading the answers. A user without the `PROCESS` privilege
//! sees its own threads alone, and no transactions: what is missing is not known, never a guess.
//!
//! Columns: <https://mariadb.com/kb/en/information-schema-processlist-table/>,
//! <https://mariadb.com/kb/en/information-schema-innodb_trx-table/>

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{Database, Error};

use super::testify::{list, rows};
use crate::registry::{Blocker, Said, ServerState, Testimony};
use crate::site::sql::{Dialect, mask_sql_for};
use crate::site::text::escape_text;

/// Its own thread, as the list of threads has it.
pub(super) const OWN: &str = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
     WHERE id = CONNECTION_ID() /* leaktrace */";

/// Asks about these threads, and about who blocks them.
pub(super) async fn ask<DB: Database>(
    conn: &mut DB::Connection,
    backends: &[i64],
) -> Result<Vec<Said>, Error> {
    // The server renews its list of transactions only when nobody has read it for 0.1 s.
    rows::<DB>(
        conn,
        "SELECT CAST(SLEEP(0.11) AS CHAR) /* leaktrace */".into(),
    )
    .await?;
    let threads = |columns: &str, transactions: &str| {
        format!(
            "SELECT CAST(p.id AS CHAR), CAST(p.command AS CHAR), CAST(ROUND(p.time_ms) AS CHAR), \
             CAST(p.state AS CHAR), CAST(p.info AS CHAR), {columns} \
             FROM information_schema.processlist p {transactions} \
             WHERE p.id IN ({}) AND p.user = SUBSTRING_INDEX(USER(), '@', 1) \
             AND p.db <=> DATABASE() /* leaktrace */",
            list(backends)
        )
    };
    let all = threads(
        "CAST(t.trx_state AS CHAR), CAST(t.trx_id AS CHAR)",
        "LEFT JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id",
    );
    let answer = match rows::<DB>(conn, all).await {
        // Without the privilege: the threads alone.
        Err(Error::Database(_)) => rows::<DB>(conn, threads("NULL, NULL", "")).await?,
        answer => answer?,
    };
    let mut said: Vec<Said> = answer.iter().filter_map(read).collect();
    if !said
        .iter()
        .any(|said| said.testimony.waits_for.as_deref() == Some(LOCK))
    {
        return Ok(said);
    }
    let sql = format!(
        "SELECT CAST(r.trx_mysql_thread_id AS CHAR), CAST(b.trx_mysql_thread_id AS CHAR), \
         CAST(p.user AS CHAR), CAST(p.info AS CHAR) \
         FROM information_schema.innodb_lock_waits w \
         JOIN information_schema.innodb_trx r ON r.trx_id = w.requesting_trx_id \
         JOIN information_schema.innodb_trx b ON b.trx_id = w.blocking_trx_id \
         LEFT JOIN information_schema.processlist p ON p.id = b.trx_mysql_thread_id \
         WHERE r.trx_mysql_thread_id IN ({}) /* leaktrace */",
        list(backends)
    );
    let mut blockers: HashMap<i64, Vec<Blocker>> = HashMap::new();
    for (waits, blocker) in rows::<DB>(conn, sql).await?.iter().filter_map(who) {
        let known = blockers.entry(waits).or_default();
        if !known.contains(&blocker) {
            known.push(blocker);
        }
    }
    for said in &mut said {
        said.testimony.blocked_by = blockers.remove(&said.backend).unwrap_or_default();
    }
    Ok(said)
}

/// What a statement waits for that waits for a lock of InnoDB.
const LOCK: &str = "Lock of InnoDB";

fn read(row: &Vec<Option<String>>) -> Option<Said> {
    let [id, command, time_ms, state, info, trx_state, trx] = row.as_slice() else {
        return None;
    };
    let millis: u64 = time_ms.as_ref()?.parse().ok()?;
    let state_said = state.as_deref().unwrap_or_default();
    let is_open = trx.is_some();
    let state = match command.as_deref()? {
        "Sleep" if is_open => ServerState::IdleInTransaction,
        "Sleep" => ServerState::Idle,
        "Query" | "Execute" | "Prepare" | "Fetch" | "Long Data" => ServerState::InFlight,
        // Being closed, or killed.
        _ => return None,
    };
    let waits_for = match (state, trx_state.as_deref()) {
        (ServerState::InFlight, Some("LOCK WAIT")) => Some(LOCK.to_string()),
        (ServerState::InFlight, _) if state_said.starts_with("Waiting for ") => {
            Some(escape_text(state_said, 100).into_owned())
        }
        _ => None,
    };
    Some(Said {
        backend: id.as_ref()?.parse().ok()?,
        age: None,
        testimony: Testimony {
            state,
            state_for: Duration::from_millis(millis),
            asked_ago: Duration::ZERO,
            sql: shown(info.as_deref()),
            waits_for,
            blocked_by: Vec::new(),
        },
    })
}

fn who(row: &Vec<Option<String>>) -> Option<(i64, Blocker)> {
    let [waits, id, user, info] = row.as_slice() else {
        return None;
    };
    let blocker = Blocker {
        user: user
            .as_deref()
            .map(|user| escape_text(user, 64).into_owned()),
        sql: shown(info.as_deref()),
        ..Blocker::unknown(id.as_ref()?.parse().ok()?)
    };
    Some((waits.as_ref()?.parse().ok()?, blocker))
}

fn shown(info: Option<&str>) -> Option<String> {
    info.filter(|info| !info.is_empty())
        .map(|info| mask_sql_for(info, Dialect::MySql))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(columns: [Option<&str>; 7]) -> Option<(ServerState, Option<String>)> {
        let row: Vec<_> = columns.iter().map(|text| text.map(String::from)).collect();
        let said = read(&row)?;
        Some((said.testimony.state, said.testimony.waits_for))
    }

    #[test]
    fn a_transaction_is_open_only_where_the_server_lists_it() {
        let id = Some("7");
        let sleep = Some("Sleep");
        let ms = Some("3200");
        let trx = Some("421");
        assert_eq!(
            state([id, sleep, ms, None, None, Some("RUNNING"), trx]),
            Some((ServerState::IdleInTransaction, None))
        );
        assert_eq!(
            state([id, sleep, ms, None, None, None, None]),
            Some((ServerState::Idle, None))
        );
        let sql = Some("UPDATE t SET a = 5");
        assert_eq!(
            state([
                id,
                Some("Query"),
                ms,
                Some("Updating"),
                sql,
                Some("LOCK WAIT"),
                trx
            ]),
            Some((ServerState::InFlight, Some(LOCK.to_string())))
        );
        assert_eq!(state([id, Some("Quit"), ms, None, None, None, None]), None);
    }
}
