//! The side connection: it asks the server about a backend that its own connection cannot be asked.
//!
//! Responsible for the questions and for the cancel. Never from the pool, whose permits are what is
//! missing. Not responsible for when it is opened or for its time limit: see `registry::returns`.

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Database, Error, SqlSafeStr};

use super::{Server, number};
use crate::registry::{Reached, Word};

/// Connects, says so, asks, cancels what still runs.
pub(in crate::pool) async fn ask<DB: Database>(
    pool: sqlx::Pool<DB>,
    backend: Option<i64>,
    may_cancel: bool,
    reached: Reached,
) -> Word {
    if DB::NAME == "SQLite" {
        // Its statements run in this process, where nobody else can reach them.
        return Word::Unknown;
    }
    let mut side = match pool.connect_options().connect().await {
        Ok(side) => side,
        // By its own word, so it is there: closing here would leave behind what may run.
        Err(Error::Database(_)) => return Word::Refused,
        Err(_) => return Word::Unreachable,
    };
    reached();
    let server = Server::of::<DB>(&side);
    let word = match inquire::<DB>(&mut side, server, backend, may_cancel).await {
        Ok(word) => word,
        Err(Error::Database(_)) => Word::Unknown,
        Err(_) => Word::Unreachable,
    };
    let _ = side.close().await;
    word
}

async fn inquire<DB: Database>(
    side: &mut DB::Connection,
    server: Server,
    backend: Option<i64>,
    may_cancel: bool,
) -> Result<Word, Error> {
    let (state, cancel) = match (server, backend) {
        (Server::Postgres, Some(id)) => (
            format!(
                "SELECT CASE WHEN state IN ('active', 'fastpath function call') THEN 1 ELSE 0 END::int8 \
                 FROM pg_stat_activity WHERE pid = {id} AND usename = current_user /* leaktrace */"
            ),
            format!("SELECT pg_cancel_backend({id})::int::int8 /* leaktrace */"),
        ),
        // A prepare is no statement that runs: the driver counts no answer to one that was cut.
        (Server::MySql, Some(id)) => (
            format!(
                "SELECT CAST(command NOT IN ('Sleep', 'Prepare') AS SIGNED) FROM information_schema.processlist \
                 WHERE id = {id} /* leaktrace */"
            ),
            format!("KILL QUERY {id} /* leaktrace */"),
        ),
        // Which one it is was never learned. If nothing of ours runs at all, it does not run either.
        (Server::Postgres, None) => (
            "SELECT count(*)::int8 FROM pg_stat_activity WHERE usename = current_user \
             AND pid <> pg_backend_pid() AND backend_type = 'client backend' \
             AND state IN ('active', 'fastpath function call') /* leaktrace */"
                .to_string(),
            String::new(),
        ),
        (Server::MySql, None) => (
            "SELECT COUNT(*) FROM information_schema.processlist \
             WHERE user = SUBSTRING_INDEX(USER(), '@', 1) AND id <> CONNECTION_ID() \
             AND command <> 'Sleep' /* leaktrace */"
                .to_string(),
            String::new(),
        ),
        (Server::Sqlite | Server::Other, _) => return Ok(Word::Unknown),
    };
    match number::<DB>(side, AssertSqlSafe(state).into_sql_str()).await? {
        None | Some(0) => Ok(Word::Idle),
        Some(_) if cancel.is_empty() || !may_cancel => Ok(Word::Unknown),
        Some(_) => {
            number::<DB>(side, AssertSqlSafe(cancel).into_sql_str()).await?;
            Ok(Word::Cancelled)
        }
    }
}
