//! The side connection that asks about the holders of a pool.
//!
//! Responsible for opening it, for its limit and for seeing that each client has a backend of its
//! own. Read-only: nothing is cancelled here. Not responsible for the words of each server
//! (`postgres`, `mysql`) or for when to ask (`monitor`).

use std::any::Any;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Database, Error, Executor, Row, SqlSafeStr};

use super::{Server, mysql, postgres};
use crate::registry::{Answer, Question, Said};

/// The whole question, connecting included; twice as long when it makes two connections. No finding
/// waits for that long.
const LIMIT: Duration = Duration::from_secs(1);
/// What the side connection calls itself, where a server can be told.
const NAME: &str = "leaktrace";

/// Asks the server about the backends of a pool's holders.
pub(in crate::pool) async fn testify<DB: Database>(
    pool: sqlx::Pool<DB>,
    question: Question,
) -> Answer {
    if DB::NAME == "SQLite" {
        return Answer::Silence;
    }
    let limit = if question.is_first { LIMIT * 2 } else { LIMIT };
    let asked = tokio::time::timeout(limit, asked::<DB>(&pool, &question)).await;
    match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Answer::Silence,
    }
}

async fn asked<DB: Database>(pool: &sqlx::Pool<DB>, question: &Question) -> Result<Answer, Error> {
    let mut side = Side::<DB>::open(pool).await?;
    if side.is_shared(&question.backends).await? {
        side.close().await;
        return Ok(Answer::Pooler);
    }
    if question.is_first {
        // Once: two clients at the same time. A pooler that gives each statement to a backend that
        // is free gives these the same one, or gives one of them another one than before.
        let mut other = Side::<DB>::open(pool).await?;
        let mut known = question.backends.clone();
        known.push(side.backend);
        let is_shared = other.is_shared(&known).await? || !side.is_itself().await?;
        other.close().await;
        if is_shared {
            side.close().await;
            return Ok(Answer::Pooler);
        }
    }
    let said = side.ask(&question.backends).await?;
    let is_itself = side.is_itself().await?;
    side.close().await;
    Ok(match is_itself {
        true => Answer::Said(said),
        false => Answer::Pooler,
    })
}

/// One connection beside the pool.
struct Side<DB: Database> {
    conn: DB::Connection,
    server: Server,
    opened: Instant,
    /// Its own backend, as it was first told.
    backend: i64,
}

impl<DB: Database> Side<DB> {
    async fn open(pool: &sqlx::Pool<DB>) -> Result<Self, Error> {
        let opened = Instant::now();
        let mut options = pool.connect_options().as_ref().clone();
        introduce(&mut options);
        let mut conn = options.connect().await?;
        let server = Server::of::<DB>(&conn);
        let backend = super::backend::<DB>(&mut conn).await?;
        Ok(Self {
            conn,
            server,
            opened,
            backend: backend.unwrap_or_default(),
        })
    }

    /// Whether its backend serves others too, as far as this connection can tell: it is one of
    /// `known`, or was there before this connection was.
    async fn is_shared(&mut self, known: &[i64]) -> Result<bool, Error> {
        /// Backends are told in whole numbers, and clocks are read at different moments.
        const SLACK: Duration = Duration::from_millis(50);
        if known.contains(&self.backend) {
            return Ok(true);
        }
        let age = match self.server {
            Server::Postgres => {
                let age = super::number::<DB>(&mut self.conn, postgres::AGE).await?;
                age.and_then(|age| u64::try_from(age).ok())
                    .map(Duration::from_millis)
            }
            Server::MySql => {
                // A proxy may answer one of the two by itself.
                let own = super::number::<DB>(&mut self.conn, mysql::OWN).await?;
                return Ok(own != Some(self.backend));
            }
            Server::Sqlite | Server::Other => None,
        };
        Ok(age.is_none_or(|age| age > self.opened.elapsed() + SLACK))
    }

    /// Whether its backend is the one that it was.
    async fn is_itself(&mut self) -> Result<bool, Error> {
        let backend = super::backend::<DB>(&mut self.conn).await?;
        Ok(backend == Some(self.backend))
    }

    async fn ask(&mut self, backends: &[i64]) -> Result<Vec<Said>, Error> {
        match self.server {
            Server::Postgres => postgres::ask::<DB>(&mut self.conn, backends).await,
            Server::MySql => mysql::ask::<DB>(&mut self.conn, backends).await,
            Server::Sqlite | Server::Other => Ok(Vec::new()),
        }
    }

    async fn close(self) {
        let _ = self.conn.close().await;
    }
}

/// So that whoever looks at the server sees who asks.
fn introduce<O: 'static>(options: &mut O) {
    let options: &mut dyn Any = options;
    #[cfg(feature = "postgres")]
    if let Some(options) = options.downcast_mut::<sqlx::postgres::PgConnectOptions>() {
        *options = options.clone().application_name(NAME);
    }
    let _ = (options, NAME);
}

/// Every row of an answer, each column as text.
///
/// # Errors
/// What the server answers, or what the connection fails with.
pub(super) async fn rows<DB: Database>(
    conn: &mut DB::Connection,
    sql: String,
) -> Result<Vec<Vec<Option<String>>>, Error> {
    let sql = AssertSqlSafe(sql).into_sql_str();
    let conn: &mut (dyn Any + Send) = conn;
    macro_rules! ask {
        ($feature:literal, $conn:ty) => {
            #[cfg(feature = $feature)]
            if let Some(conn) = conn.downcast_mut::<$conn>() {
                let rows = Executor::fetch_all(conn, sqlx::raw_sql(sql)).await?;
                return rows
                    .iter()
                    .map(|row| (0..row.len()).map(|column| row.try_get(column)).collect())
                    .collect();
            }
        };
    }
    ask!("postgres", sqlx::PgConnection);
    ask!("mysql", sqlx::MySqlConnection);
    ask!("any", sqlx::AnyConnection);
    let _ = (conn, sql);
    Ok(Vec::new())
}

/// Backends as a list in SQL. Numbers only, so that nothing has to be escaped.
pub(super) fn list(backends: &[i64]) -> String {
    let backends: Vec<String> = backends.iter().map(i64::to_string).collect();
    backends.join(", ")
}
