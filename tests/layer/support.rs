//! Servers on loopback, clients made of a bare socket, and waiting for counts.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use leaktrace::{Config, Monitor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How requests ended: what a test compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) completed: u64,
    pub(crate) cancelled: u64,
    pub(crate) panicked: u64,
    pub(crate) errored: u64,
}

impl Ends {
    pub(crate) fn of(monitor: &Monitor) -> Self {
        let counts = monitor.requests();
        Self {
            completed: counts.completed,
            cancelled: counts.cancelled,
            panicked: counts.panicked,
            errored: counts.errored,
        }
    }

    pub(crate) fn completed(completed: u64) -> Self {
        Self {
            completed,
            ..Self::default()
        }
    }

    pub(crate) fn cancelled(cancelled: u64) -> Self {
        Self {
            cancelled,
            ..Self::default()
        }
    }

    pub(crate) fn panicked(panicked: u64) -> Self {
        Self {
            panicked,
            ..Self::default()
        }
    }

    fn total(self) -> u64 {
        self.completed + self.cancelled + self.panicked + self.errored
    }
}

pub(crate) fn monitor() -> Monitor {
    Monitor::new(Config::default())
}

/// Waits until as many requests ended as `expected` counts, then compares.
#[track_caller]
pub(crate) fn ended(monitor: &Monitor, expected: Ends) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let all_ended = || Ends::of(monitor).total() >= expected.total();
        let in_time = until(all_ended).await;
        let seen = Ends::of(monitor);
        assert!(
            in_time && seen == expected,
            "at {caller}: {seen:?}, not {expected:?}"
        );
    }
}

/// Waits for a condition; `false` if it never came true.
pub(crate) async fn until(condition: impl Fn() -> bool) -> bool {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .is_ok()
}

/// Serves the app on loopback, over HTTP/1.1 and HTTP/2, until the runtime ends.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

/// Connects and sends these bytes.
pub(crate) async fn send(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.expect("the server listens");
    socket
        .write_all(bytes.as_ref())
        .await
        .expect("the server reads");
    socket
}

/// One request without a body; all bytes of the answer until the server closes.
pub(crate) async fn exchange(addr: SocketAddr, request_line: &str, more_headers: &str) -> Vec<u8> {
    let request =
        format!("{request_line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{more_headers}\r\n");
    read_to_end(send(addr, request).await).await
}

pub(crate) async fn get(addr: SocketAddr, path: &str) -> String {
    let answer = exchange(addr, &format!("GET {path}"), "").await;
    String::from_utf8(answer).expect("this answer is text")
}

pub(crate) async fn read_to_end(mut socket: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    // A connection that a panic closed may be reset; what came before counts.
    let _ = tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("the server closes the connection");
    answer
}

/// Reads until these bytes were seen; all that came so far.
pub(crate) async fn read_until(socket: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    let read = async {
        while !seen.windows(end.len()).any(|window| window == end) {
            let more = socket.read_buf(&mut seen).await.expect("still connected");
            assert_ne!(more, 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("the bytes come");
    seen
}

/// Leaves without a word: both directions shut, then dropped.
pub(crate) async fn leave(mut socket: TcpStream) {
    // The server may have gone first; leaving is all that matters.
    let _ = socket.shutdown().await;
    drop(socket);
}

/// A log that handlers write and tests read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().expect("not poisoned").push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").clone()
    }

    pub(crate) async fn has(&self, line: &str) {
        assert!(
            until(|| self.lines().iter().any(|seen| seen == line)).await,
            "no {line:?} in {:?}",
            self.lines()
        );
    }
}

/// The name of the current scope, or a dash.
pub(crate) fn scope_name() -> String {
    leaktrace::Scope::current().map_or("-".into(), |scope| scope.name().to_owned())
}

/// Says in the log in which scope it was dropped, and what the monitor knew by then.
pub(crate) struct Dropped(pub(crate) Log, pub(crate) Monitor);

impl Drop for Dropped {
    fn drop(&mut self) {
        let known = Ends::of(&self.1).cancelled;
        self.0
            .add(format!("dropped in {}, {known} cancelled", scope_name()));
    }
}
