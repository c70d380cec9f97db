//! A fresh database for each test, and the ledger of which test ran on which database.
//!
//! Responsible for the server URLs, for creating and dropping databases and for saying which
//! databases were left out. Starting the servers is `scripts/servers`' work.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use reqwest::Url;
use sqlx::{ConnectOptions, Connection, MySqlConnection, PgConnection};

/// A kind of database that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Db {
    Postgres,
    MySql,
    Sqlite,
    /// sqlx's `Any` driver, here in front of SQLite, so that it always runs.
    Any,
}

impl Db {
    pub(crate) const ALL: [Self; 4] = [Self::Postgres, Self::MySql, Self::Sqlite, Self::Any];

    /// The word that `scripts/test` counts.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
            Self::Any => "any",
        }
    }

    fn variable(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("LEAKTRACE_TEST_POSTGRES_URL"),
            Self::MySql => Some("LEAKTRACE_TEST_MYSQL_URL"),
            Self::Sqlite | Self::Any => None,
        }
    }

    /// The URL of the server, when this database has one and it is set.
    pub(crate) fn server_url(self) -> Option<String> {
        std::env::var(self.variable()?)
            .ok()
            .filter(|url| !url.is_empty())
    }

    /// Whether tests can run on this database here; says so once when they cannot.
    pub(crate) fn available(self) -> bool {
        let Some(variable) = self.variable() else {
            return true;
        };
        if self.server_url().is_some() {
            return true;
        }
        static POSTGRES: Once = Once::new();
        static MYSQL: Once = Once::new();
        let said = if self == Self::Postgres {
            &POSTGRES
        } else {
            &MYSQL
        };
        said.call_once(|| {
            // Not `eprintln!`: the test harness would swallow it when the test passes.
            let _ = writeln!(
                std::io::stderr(),
                "skipped: {self} ({variable} is not set; scripts/test starts one)"
            );
        });
        false
    }
}

impl fmt::Display for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::MySql => "MariaDB",
            Self::Sqlite => "SQLite",
            Self::Any => "Any",
        })
    }
}

/// Enters the current test in the ledger of `scripts/test` as one that ran on `db`.
///
/// [`database`] does it already; only a test that makes its database otherwise calls this.
pub(crate) fn ran_on(db: Db) {
    enter(db.word());
}

/// Enters the current test in the ledger under that word.
pub(crate) fn enter(word: &str) {
    let Ok(path) = std::env::var("LEAKTRACE_TEST_LEDGER") else {
        return;
    };
    let thread = std::thread::current();
    let line = format!(
        "{word} {}::{}\n",
        env!("CARGO_CRATE_NAME"),
        thread.name().unwrap_or("unnamed thread")
    );
    // One write of one line in append mode: lines of parallel tests do not mix.
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|error| panic!("cannot write the ledger {path}: {error}"));
}

/// A database of one test. Dropped with the value, as far as possible.
#[derive(Debug)]
pub(crate) struct TestDb {
    pub(crate) db: Db,
    /// What to connect to.
    pub(crate) url: String,
    undo: Undo,
}

#[derive(Debug)]
enum Undo {
    Postgres { server: String, name: String },
    MySql { server: String, name: String },
    Directory(PathBuf),
    Nothing,
}

/// A fresh database of this kind; `None`, after saying so, when there is no server for it.
///
/// SQLite is a file in WAL mode. `Any` is SQLite behind sqlx's `Any` driver; see [`TestDb::as_any`]
/// for the others.
pub(crate) async fn database(db: Db) -> Option<TestDb> {
    if !db.available() {
        return None;
    }
    ran_on(db);
    let made = match db {
        Db::Postgres => postgres(db.server_url()?).await,
        Db::MySql => mysql(db.server_url()?).await,
        Db::Sqlite => sqlite_file().await,
        Db::Any => {
            sqlx::any::install_default_drivers();
            sqlite_file().await.map(|mut made| {
                made.db = Db::Any;
                made
            })
        }
    };
    Some(made.unwrap_or_else(|error| panic!("cannot create a database on {db}: {error}")))
}

/// A fresh PostgreSQL database; `None` without a server.
pub(crate) async fn postgres_database() -> Option<TestDb> {
    database(Db::Postgres).await
}

/// A fresh MariaDB database; `None` without a server.
pub(crate) async fn mysql_database() -> Option<TestDb> {
    database(Db::MySql).await
}

/// A fresh SQLite file in WAL mode.
pub(crate) async fn sqlite_database() -> TestDb {
    match database(Db::Sqlite).await {
        Some(made) => made,
        None => unreachable!("SQLite needs no server"),
    }
}

/// SQLite in memory. All connections that come from one parse of the URL share it; an observer,
/// which parses it again, does not.
pub(crate) fn sqlite_memory() -> TestDb {
    ran_on(Db::Sqlite);
    TestDb {
        db: Db::Sqlite,
        url: "sqlite::memory:".to_owned(),
        undo: Undo::Nothing,
    }
}

impl TestDb {
    /// Counts the test for `Any` too, and returns the URL for `AnyPool`.
    pub(crate) fn as_any(&self) -> &str {
        sqlx::any::install_default_drivers();
        ran_on(Db::Any);
        &self.url
    }

    /// The name of the database on its server.
    pub(crate) fn name(&self) -> &str {
        match &self.undo {
            Undo::Postgres { name, .. } | Undo::MySql { name, .. } => name,
            Undo::Directory(_) | Undo::Nothing => "main",
        }
    }
}

/// Unique on the server also among the processes of several checkouts.
fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    format!(
        "leaktrace_{}_{}_{nanos:08x}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// The URL with this parameter, whatever others it has; one of the same name is replaced.
pub(crate) fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let mut url = Url::parse(url).expect("the URL of a database");
    let others: Vec<(String, String)> = url
        .query_pairs()
        .into_owned()
        .filter(|(other, _)| other != name)
        .collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(others)
        .append_pair(name, value);
    url.into()
}

fn with_name(server: &str, name: &str) -> Result<String, sqlx::Error> {
    let mut url = Url::parse(server).map_err(|error| sqlx::Error::Configuration(error.into()))?;
    url.set_path(name);
    Ok(url.into())
}

async fn postgres(server: String) -> Result<TestDb, sqlx::Error> {
    let name = unique_name();
    let mut conn = PgConnection::connect(&server).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut conn)
        .await?;
    conn.close().await?;
    Ok(TestDb {
        db: Db::Postgres,
        url: with_name(&server, &name)?,
        undo: Undo::Postgres { server, name },
    })
}

async fn mysql(server: String) -> Result<TestDb, sqlx::Error> {
    let name = unique_name();
    let mut conn = MySqlConnection::connect(&server).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut conn)
        .await?;
    conn.close().await?;
    Ok(TestDb {
        db: Db::MySql,
        url: with_name(&server, &name)?,
        undo: Undo::MySql { server, name },
    })
}

async fn sqlite_file() -> Result<TestDb, sqlx::Error> {
    let dir = std::env::temp_dir().join(unique_name());
    std::fs::create_dir(&dir)?;
    let file = dir.join("test.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    // The file remembers its journal mode for every later connection.
    options.connect().await?.close().await?;
    Ok(TestDb {
        db: Db::Sqlite,
        url: format!("sqlite://{}", file.display()),
        undo: Undo::Directory(dir),
    })
}

impl Drop for TestDb {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.undo, Undo::Nothing) {
            Undo::Nothing => {}
            Undo::Directory(dir) => {
                let _ = std::fs::remove_dir_all(dir);
            }
            undo => {
                // A runtime of its own: the test's may be gone, blocked or on paused time. Joined,
                // because the process ends right after the last test.
                let dropper = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()?;
                    runtime.block_on(async {
                        let limit = Duration::from_secs(5);
                        tokio::time::timeout(limit, undo.run()).await.ok();
                    });
                    std::io::Result::Ok(())
                });
                let _ = dropper.join();
            }
        }
    }
}

impl Undo {
    async fn run(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres { server, name } => {
                let mut conn = PgConnection::connect(&server).await?;
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                    .execute(&mut conn)
                    .await?;
            }
            Self::MySql { server, name } => {
                let mut conn = MySqlConnection::connect(&server).await?;
                // An open transaction of a leaked connection would block the drop for ever.
                let ids: Vec<i64> = sqlx::query_scalar(
                    "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = ?",
                )
                .bind(&name)
                .fetch_all(&mut conn)
                .await?;
                for id in ids {
                    // It may have ended by itself.
                    let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("KILL {id}")))
                        .execute(&mut conn)
                        .await;
                }
                let sql = format!("DROP DATABASE IF EXISTS {name}");
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                    .execute(&mut conn)
                    .await?;
            }
            Self::Directory(_) | Self::Nothing => {}
        }
        Ok(())
    }
}

/// Opens so many connections of a pool, as often as it takes, and has them idle. For pools that are
/// watched afterwards: on a busy machine opening one may take longer than an acquire has.
pub(crate) async fn open_idle<DB: sqlx::Database>(pool: &sqlx::Pool<DB>, count: usize) {
    let mut open = Vec::new();
    while open.len() < count {
        open.extend(pool.acquire().await.ok());
    }
    for mut conn in open {
        conn.return_to_pool().await;
    }
}
