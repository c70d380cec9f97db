//! A child process: started, read line by line, interrupted.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Something to be run.
pub(crate) struct Program(PathBuf);

impl Program {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The example, built if it is not: `cargo test --test example` alone does not build it.
    pub(crate) fn example() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        cargo(&["build", "--quiet", "--example", "leaky_service"], root);
        Self(target().join("debug/examples/leaky_service"))
    }

    /// Starts it for a minute at most.
    pub(crate) fn start(&self, variables: &[(&str, &str)]) -> Run {
        let mut child = Command::new(&self.0)
            .args(["--seconds", "60"])
            .env_remove("RUST_LOG")
            .env_remove("DB_LEAK_THRESHOLD")
            .env_remove("DB_LEAK_IDLE_IN_TRANSACTION")
            // A busy machine may let an acquire wait for a while: that would be another finding than those
            // asked for.
            .env("DB_LEAK_WAIT", "3s")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.0.display()));
        let out = child.stdout.take().expect("it is piped");
        Run {
            child,
            out: BufReader::new(out),
        }
    }
}

/// The directory of this build: this test is `target/debug/deps/example-…`.
pub(crate) fn target() -> PathBuf {
    let exe = std::env::current_exe().expect("a test has a path");
    exe.ancestors()
        .nth(3)
        .expect("three folders above a test lies target/")
        .to_path_buf()
}

/// Runs cargo; it is not running now, or there would be no test.
pub(crate) fn cargo(arguments: &[&str], folder: &Path) {
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .env("CARGO_TARGET_DIR", target())
        .current_dir(folder)
        .status()
        .expect("cargo runs");
    assert!(
        status.success(),
        "cargo {arguments:?} in {}",
        folder.display()
    );
}

/// A running program. Dropped, it is killed.
pub(crate) struct Run {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Run {
    /// Everything up to the line that contains `mark`, or to the end.
    pub(crate) fn read_until(&mut self, mark: &str) -> String {
        let mut text = String::new();
        while self.line(&mut text) {
            if text.lines().last().is_some_and(|line| line.contains(mark)) {
                break;
            }
        }
        assert!(text.contains(mark), "{mark:?} was not printed:\n{text}");
        text
    }

    /// Asks the service that greeted with `hello` until its answer contains `mark`.
    pub(crate) fn get_until(&self, hello: &str, path: &str, mark: &str) -> String {
        let (_, rest) = hello
            .split_once("http://")
            .expect("it says where it serves");
        let address = rest.split([' ', '/']).next().unwrap_or_default();
        let mut answer = String::new();
        for _ in 0..200 {
            answer = get(address, path).unwrap_or_else(|error| panic!("{address}: {error}"));
            if answer.contains(mark) {
                return answer;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("{mark:?} is not in {path}:\n{answer}");
    }

    /// Everything until Ctrl-C has ended it.
    pub(crate) fn interrupt(&mut self) -> String {
        let sent = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -INT");
        let mut text = String::new();
        while self.line(&mut text) {}
        let status = self.child.wait().expect("it has ended");
        assert!(status.success(), "{status}:\n{text}");
        text
    }

    fn line(&mut self, text: &mut String) -> bool {
        let mut bytes = Vec::new();
        let read = self.out.read_until(b'\n', &mut bytes);
        text.push_str(&String::from_utf8_lossy(&bytes));
        read.is_ok_and(|count| count > 0)
    }
}

fn get(address: &str, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    write!(socket, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines below the comments `// BUG:`, from 1.
pub(crate) fn marked_lines(source: &str) -> Vec<u32> {
    let marks = source
        .lines()
        .zip(2_u32..)
        .filter(|(line, _)| line.trim_start().starts_with("// BUG:"));
    marks.map(|(_, next)| next).collect()
}

/// The lines of `file` that reports name as those that took a connection, in order, each once.
pub(crate) fn reported_lines(text: &str, file: &str) -> Vec<u32> {
    let places = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("acquired "))
        // A statement on the pool has no line of its own; one may be in flight at any report.
        .filter(|place| !place.trim_start().starts_with("by a statement on the pool"))
        .map(|place| {
            let line = place
                .trim_start()
                .strip_prefix(file)
                .and_then(|rest| rest.strip_prefix(':'))
                .and_then(|rest| rest.split(':').next());
            line.and_then(|line| line.parse().ok())
                .unwrap_or_else(|| panic!("no line of {file}: {place}"))
        });
    let mut lines: Vec<u32> = places.collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}
