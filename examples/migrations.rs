//! Migrations on start: two processes race to migrate one database, and each step is done once.
//!
//! ```sh
//! cargo run --example migrations                                      # SQLite, in a file of its own
//! DATABASE_URL=postgres://app@localhost/orders cargo run --example migrations
//! ```
//!
//! Starts itself twice, lets both go at the same moment, and fails when one of them fails, or when a
//! step was done twice or not at all. What a service takes from here is `migrate`. On PostgreSQL all of
//! it lies in a schema of its own, which is dropped at the end. `--seconds N` is the time after which it
//! gives up, 60 by default. Needs the features `any` and `kit`, and those of the databases.

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use leaktrace::AnyPool;
use leaktrace::kit::PoolSettings;
use sqlx::migrate::Migrator;
use sqlx::{AnyConnection, AssertSqlSafe, Connection};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

static MIGRATOR: Migrator = sqlx::migrate!("examples/notes");

/// What a service does before it takes requests.
async fn migrate(pool: &AnyPool, url: &str) -> Result<()> {
    // sqlx takes an advisory lock on PostgreSQL and MySQL. On SQLite it takes none, and whoever comes
    // second fails: a lock on a file, which the system releases also when the process dies.
    let _lock = match url.strip_prefix("sqlite://") {
        Some(file) => {
            let file = file.split('?').next().unwrap_or(file);
            let lock = std::fs::File::create(format!("{file}.lock"))?;
            Some(tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??)
        }
        None => None,
    };
    // Whoever waits for the other one holds a connection for long, and on purpose.
    let migrations = pool.labeled("migrations").unreported();
    let mut conn = migrations.acquire().await?;
    // A run that fails does not unlock: its lock ends with its session, which must not be reused.
    conn.close_on_drop();
    // A time limit that is right for requests ends a long step, and whoever waits for the other process.
    if conn.backend_name() == "PostgreSQL" {
        sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0")
            .execute(&mut *conn)
            .await?;
    }
    MIGRATOR.run(&mut *conn).await?;
    Ok(())
}

async fn count(conn: impl sqlx::AnyExecutor<'_>) -> Result<i64> {
    let count = sqlx::query_scalar("SELECT count(*) FROM notes");
    Ok(count.fetch_one(conn).await?)
}

/// One of the two: connects, waits for the word, migrates, looks.
async fn child() -> Result<()> {
    let url = std::env::var("DATABASE_URL")?;
    let pool: AnyPool = PoolSettings::from_env()?.connect().await?;
    println!("ready");
    BufReader::new(tokio::io::stdin())
        .read_line(&mut String::new())
        .await?;
    migrate(&pool, &url).await?;
    println!("notes: {}", count(&pool).await?);
    pool.close().await;
    Ok(())
}

/// What both processes say, which start at the same moment.
async fn race(url: &str) -> Result<()> {
    let start = || -> Result<Child> {
        Ok(Command::new(std::env::current_exe()?)
            .arg("--child")
            .env("DATABASE_URL", url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?)
    };
    let mut children = [start()?, start()?];
    let mut said = Vec::new();
    for child in &mut children {
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let ready = lines.next_line().await?;
        if ready.as_deref() != Some("ready") {
            return Err("a process did not start".into());
        }
        said.push(lines);
    }
    for child in &mut children {
        child
            .stdin
            .take()
            .ok_or("no input")?
            .write_all(b"go\n")
            .await?;
    }
    for (number, (child, lines)) in children.iter_mut().zip(&mut said).enumerate() {
        let line = lines.next_line().await?.unwrap_or_default();
        println!("process {}: {line}", number + 1);
        let status = child.wait().await?;
        if !status.success() || line != "notes: 1" {
            return Err(format!("process {}: {status}", number + 1).into());
        }
    }
    Ok(())
}

/// The race in a schema of its own.
async fn on_a_server(url: &str) -> Result<()> {
    let mut conn = AnyConnection::connect(url).await?;
    if conn.backend_name() != "PostgreSQL" {
        return Err("DATABASE_URL must be one of PostgreSQL, or unset for SQLite".into());
    }
    let schema = format!("example_{}", std::process::id());
    let run = async |conn: &mut AnyConnection, sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await
    };
    run(&mut conn, format!("CREATE SCHEMA {schema}")).await?;
    let sign = if url.contains('?') { '&' } else { '?' };
    let raced = race(&format!("{url}{sign}options[search_path]={schema}")).await;
    run(&mut conn, format!("DROP SCHEMA {schema} CASCADE")).await?;
    conn.close().await?;
    raced
}

/// The race on a file of its own.
async fn on_a_file() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("leaktrace_example_{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let raced = race(&format!(
        "sqlite://{}?mode=rwc",
        folder.join("notes.db").display()
    ))
    .await;
    std::fs::remove_dir_all(&folder)?;
    raced
}

#[tokio::main]
async fn main() -> Result<()> {
    sqlx::any::install_default_drivers();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let seconds = match &*words {
        [word] if word == "--child" => return child().await,
        [] => 60,
        [word, seconds] if word == "--seconds" => seconds.parse()?,
        _ => return Err("usage: migrations [--seconds N]".into()),
    };
    let race = async {
        match std::env::var("DATABASE_URL") {
            Ok(url) => on_a_server(&url).await,
            Err(_) => on_a_file().await,
        }
    };
    tokio::time::timeout(Duration::from_secs(seconds), race).await??;
    println!("each step was done once");
    Ok(())
}
