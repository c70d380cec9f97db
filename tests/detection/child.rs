//! A process of its own, for what a test cannot do in the process of all others.
//!
//! This very binary, started again with the part to play in a variable of the environment.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use leaktrace::{Config, Finding, Kind, Monitor, SqlitePool, SqlitePoolOptions};

use crate::ground::*;
use crate::support::{Capture, Events};

const VARIABLE: &str = "LEAKTRACE_TEST_ROLE";

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    NobodyListens,
    SubscriberComesLater,
    FilterRefuses,
    Global,
    Held,
    Watchdog,
}

impl Role {
    const ALL: [Self; 6] = [
        Self::NobodyListens,
        Self::SubscriberComesLater,
        Self::FilterRefuses,
        Self::Global,
        Self::Held,
        Self::Watchdog,
    ];
}

/// A child that has not been started.
pub(crate) struct Play {
    pub(crate) command: Command,
}

pub(crate) fn play(role: Role, environment: &[(&str, &str)]) -> Play {
    let myself = std::env::current_exe().expect("the path of this test");
    let mut command = Command::new(myself);
    command
        .args(["child::plays_its_role", "--exact", "--nocapture"])
        .env(VARIABLE, format!("{role:?}"))
        .env_remove("LEAKTRACE_TEST_LEDGER")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Play { command }
}

impl Play {
    /// Runs it to its end: what it wrote to stdout and to stderr.
    pub(crate) fn output(mut self) -> (String, String) {
        let done = self.command.output().expect("a child process");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (out, err) = (text(done.stdout), text(done.stderr));
        assert!(done.status.success(), "{}\n{out}\n{err}", done.status);
        (out, err)
    }

    /// Runs it until it has written this line.
    pub(crate) fn until(mut self, line: &str) -> Running {
        let mut child = self.command.spawn().expect("a child process");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut written = String::new();
        while !written.lines().any(|known| known == line) {
            assert_ne!(
                out.read_line(&mut written).expect("its output"),
                0,
                "{written}"
            );
        }
        Running { child, out }
    }
}

/// A child at work. Killed when a test fails before its end.
pub(crate) struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Running {
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let done = Command::new("kill").args([signal, &id]).status();
        assert!(done.expect("kill").success());
    }

    /// The rest of what it writes.
    pub(crate) fn rest(mut self) -> String {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("its output");
        assert!(self.child.wait().expect("its end").success(), "{rest}");
        rest
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nothing by itself: the other tests start it with a role.
#[test]
fn plays_its_role() {
    let Ok(role) = std::env::var(VARIABLE) else {
        return;
    };
    let role = Role::ALL
        .into_iter()
        .find(|known| format!("{known:?}") == role)
        .expect("a known role");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match role {
            Role::NobodyListens => overdue(&Monitor::new(silent()), &["one", "two"]).await,
            Role::SubscriberComesLater => {
                let monitor = Monitor::new(silent());
                let events = Events::new();
                tracing::subscriber::set_global_default(events.subscriber()).expect("the first");
                overdue(&monitor, &["one"]).await;
                print(&events);
            }
            Role::FilterRefuses => {
                use tracing_subscriber::layer::{Layer, SubscriberExt};
                let events = Events::new();
                let filter = tracing_subscriber::EnvFilter::new("info,leaktrace=error");
                let subscriber =
                    tracing_subscriber::registry().with(events.clone().with_filter(filter));
                tracing::subscriber::set_global_default(subscriber).expect("the first");
                overdue(&Monitor::new(silent()), &["one"]).await;
                print(&events);
            }
            Role::Global => global().await,
            Role::Held => held().await,
            Role::Watchdog => crate::watchdog::measure().await,
        }
    });
}

fn print(events: &Events) {
    for event in events.all() {
        let kind = event.fields.get("kind").cloned().unwrap_or_default();
        println!("event {} {kind}{}", event.level, event.message);
    }
}

pub(crate) async fn pool(monitor: &Monitor, name: &str) -> SqlitePool {
    SqlitePoolOptions::new()
        .monitor(monitor)
        .name(name)
        .connect("sqlite::memory:")
        .await
        .expect("a pool in memory")
}

/// Holds a connection of a pool of each name until that is reported.
async fn overdue(monitor: &Monitor, names: &[&str]) {
    let findings = listen(monitor);
    for name in names {
        let pool = pool(monitor, name).await;
        monitor.set_threshold(Duration::from_secs(3600));
        let _conn = pool.acquire().await.expect("a connection");
        aged(&pool, millis(20)).await;
        monitor.set_threshold(millis(10));
        let of_this_pool = |all: &[Finding]| {
            all.iter()
                .find(|found| found.kind == Kind::HeldTooLong && found.pool == *name)
                .map(drop)
        };
        findings
            .wait_for("the finding", PATIENCE, of_this_pool)
            .await;
    }
}

async fn global() {
    let events = Events::new();
    tracing::subscriber::set_global_default(events.subscriber()).expect("the first");
    let monitor = Monitor::global();
    assert!(std::ptr::eq(monitor, Monitor::global()));
    let pool = SqlitePool::connect("sqlite::memory:")
        .await
        .expect("a pool");
    let _conn = pool.acquire().await.expect("a connection");
    print(&events);
    println!(
        "works: detail {}, threshold {}, {} held",
        monitor.detail(),
        monitor.threshold(),
        pool.holders().len()
    );
}

/// Holds a connection, for which another task waits, until the process was stopped for a while, or until
/// that is reported; then another one at another line until that is reported. Writes what was.
async fn held() {
    let config = Config::default()
        .detail(leaktrace::Detail::Backtrace)
        .threshold(Duration::from_secs(2))
        .wait(Duration::from_secs(2));
    let monitor = Monitor::new(config);
    let findings: Capture<Finding> = listen(&monitor);
    let pool = SqlitePoolOptions::new()
        .monitor(&monitor)
        .name("orders")
        .max_connections(1)
        .acquire_timeout(PATIENCE * 2)
        .connect("sqlite::memory:")
        .await
        .expect("a pool in memory");
    let first = pool.labeled("first").acquire().await.expect("a connection");
    let waits = pool.labeled("waits");
    let waiter = tokio::spawn(async move { waits.acquire().await.map(drop) });
    while monitor.waiters().is_empty() {
        tokio::task::yield_now().await;
    }
    println!("\nheld");
    std::io::stdout().flush().expect("stdout");
    let mut last = Instant::now();
    let said = |kind: Kind| findings.all().iter().any(|found| found.kind == kind);
    let both = || said(Kind::HeldTooLong) && said(Kind::Exhausted);
    while !both() && last.elapsed() < Duration::from_secs(10) {
        last = Instant::now();
        std::thread::sleep(millis(5));
    }
    // After a stop: for longer than the watchdog ever sleeps, so that it has looked at this holder.
    std::thread::sleep(millis(700));
    drop(first);
    waiter.await.expect("no panic").expect("a connection");
    // So that all was said that there was to say: another one, which must be reported.
    let _second = pool
        .labeled("second")
        .acquire()
        .await
        .expect("a connection");
    let second = |all: &[Finding]| {
        let labels = |found: &Finding| label(found) == "second";
        all.iter().any(labels).then_some(())
    };
    findings.wait_for("the second", PATIENCE, second).await;
    for found in findings.all() {
        println!("said {} {}", found.kind, label(&found));
    }
}

/// Of the holder that a finding is about.
fn label(found: &Finding) -> &str {
    let holder = found.holders.first();
    holder
        .and_then(|holder| holder.label.as_deref())
        .unwrap_or_default()
}
