//! A server on loopback, a client made of a bare socket, and what both of them are about.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use futures::StreamExt;
use leaktrace::{Config, SqlitePool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::{Bench, PATIENCE};
use crate::support::eventually;

/// Serves the app on loopback until the runtime ends.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

/// A client that has sent its request and reads nothing yet.
pub(crate) struct Client(TcpStream);

impl Client {
    /// `line` is method and path.
    pub(crate) async fn send(addr: SocketAddr, line: &str) -> Self {
        Self::upload(addr, line, 0, "").await
    }

    /// Sends this part of an upload of that length.
    pub(crate) async fn upload(addr: SocketAddr, line: &str, length: usize, part: &str) -> Self {
        let mut socket = TcpStream::connect(addr).await.expect("the server listens");
        let head = format!(
            "{line} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{part}"
        );
        socket.write_all(head.as_bytes()).await.expect("sent");
        Self(socket)
    }

    /// Reads a piece of the answer.
    pub(crate) async fn some(&mut self) -> String {
        let mut piece = vec![0; 512];
        let read = tokio::time::timeout(PATIENCE, self.0.read(&mut piece)).await;
        let length = read.expect("in time").expect("connected");
        piece.truncate(length);
        String::from_utf8(piece).expect("text")
    }

    /// Reads the whole answer.
    pub(crate) async fn answer(mut self) -> String {
        let mut answer = String::new();
        let read = self.0.read_to_string(&mut answer);
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.expect("in time").expect("connected");
        answer
    }

    /// Leaves without a word.
    pub(crate) async fn leave(mut self) {
        // The server may have gone first.
        let _ = self.0.shutdown().await;
    }
}

/// The whole answer to one request.
pub(crate) async fn ask(addr: SocketAddr, line: &str) -> String {
    Client::send(addr, line).await.answer().await
}

/// Twice the grace of these tests.
pub(crate) const GRACE: Duration = Duration::from_millis(200);

/// So patient that nothing here is ever reported for being slow: what is said is said of a bug.
pub(crate) fn patient() -> Config {
    Config::default()
        .threshold(PATIENCE)
        .idle_in_transaction(PATIENCE)
        .wait(PATIENCE)
}

/// Everything is back, the pool can give all it has, and nobody was told anything.
pub(crate) async fn back_and_silent(bench: &Bench, pool: &SqlitePool) {
    eventually("all is back", PATIENCE, async || {
        let status = pool.status();
        match status.held + status.returning + status.waiting {
            0 => Ok(()),
            _ => Err(status),
        }
    })
    .await;
    let mut all = Vec::new();
    for _ in 0..pool.status().max {
        all.push(pool.acquire().await.expect("a permit"));
    }
    drop(all);
    let said = bench.findings.all();
    assert!(said.is_empty(), "{}", said[0]);
}

/// What uploads are written into.
#[derive(Clone, Default)]
pub(crate) struct Book(Arc<AtomicUsize>);

impl Book {
    pub(crate) async fn new(pool: &SqlitePool) -> Self {
        let table = "CREATE TABLE parts (bytes INTEGER)";
        sqlx::query(table).execute(pool).await.expect("a table");
        Self::default()
    }

    /// Writes each part of a body, all in one transaction.
    pub(crate) async fn write(&self, pool: &SqlitePool, body: Body) -> Result<(), StatusCode> {
        let mut tx = pool.begin().await.expect("free");
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|_| StatusCode::BAD_REQUEST)?;
            // The end of a stream may come as a frame of its own.
            if !part.is_empty() {
                self.row(&mut tx, part.len()).await;
            }
        }
        tx.commit().await.expect("saved");
        Ok(())
    }

    pub(crate) async fn row(&self, tx: &mut leaktrace::SqliteTransaction<'_>, bytes: usize) {
        let bytes = i64::try_from(bytes).expect("short");
        let row = sqlx::query("INSERT INTO parts VALUES (?)").bind(bytes);
        row.execute(&mut **tx).await.expect("a row");
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until so many rows were written, saved or not.
    pub(crate) async fn has_written(&self, rows: usize) {
        eventually("written", PATIENCE, async || {
            self.0.load(Ordering::Relaxed) == rows
        })
        .await;
    }

    /// How many are saved.
    pub(crate) async fn rows(&self, pool: &SqlitePool) -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM parts");
        count.fetch_one(pool).await.expect("a number")
    }
}
