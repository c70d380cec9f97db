//! Servers of one test alone, which it may stop and start.
//!
//! Responsible for asking `scripts/servers` for them and for ending them. A server of everybody would
//! take the other tests with it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::db::Db;

/// Private servers. Stopped, with their directory, when dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    dir: PathBuf,
}

impl Servers {
    /// All but the replica. `None`, after saying so, where the tests run without servers or cannot
    /// start any.
    pub(crate) fn start(db: Db) -> Option<Self> {
        Self::start_without(db, &["LEAKTRACE_TEST_REPLICA_URL"])
    }

    /// All but those whose URL is in these variables.
    pub(crate) fn start_without(db: Db, variables: &[&str]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !db.available() {
            return None;
        }
        if !run(&["packages"], variables) {
            eprintln!("skipped: {db} cannot be started here, only used");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("leaktrace_own_{}_{number}", std::process::id());
        let servers = Self {
            dir: std::env::temp_dir().join(name),
        };
        let dir = servers.dir.to_str().expect("a path in UTF-8");
        assert!(run(&["start", dir], variables), "the servers start");
        Some(servers)
    }

    /// Whether `scripts/servers` could do that with them, such as `restart`.
    pub(crate) fn run(&self, what: &str) -> bool {
        run(&[what, self.dir.to_str().expect("a path in UTF-8")], &[])
    }

    pub(crate) fn url(&self, variable: &str) -> String {
        let text = std::fs::read_to_string(self.dir.join("env")).expect("their URLs");
        let start = format!("export {variable}='");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        let url = line.expect("the URL").trim_end_matches('\'');
        url.to_owned()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.run("stop");
    }
}

fn run(words: &[&str], without: &[&str]) -> bool {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/servers");
    let mut command = Command::new(script);
    command.args(words);
    // Those that are set belong to everybody, and for a variable that is set none is started.
    for variable in ["POSTGRES", "MYSQL", "PGBOUNCER", "REPLICA"] {
        command.env_remove(format!("LEAKTRACE_TEST_{variable}_URL"));
    }
    for variable in without {
        command.env(variable, "none");
    }
    let output = command.output().expect("bash runs it");
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}
