//! A server with one route, the requests it is sent, and what is said of them.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use leaktrace::{Config, Detail, Finding, SqlitePool};
use sqlx::Sqlite;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::{Bench, PATIENCE, assert_names};
use crate::support::db::{TestDb, sqlite_database};
use crate::support::eventually;

/// Beyond it a holder is overdue; several times what a busy machine needs for a statement.
pub(crate) const THRESHOLD: Duration = Duration::from_secs(2);

/// What is awaited beside the database: so much longer than the threshold that also a watchdog that is
/// late for seconds has seen it.
pub(crate) async fn ask_a_partner() {
    tokio::time::sleep(THRESHOLD * 4).await;
}

/// A monitor, a pool, and what is said.
pub(crate) struct Ground {
    pub(crate) bench: Bench,
    pub(crate) pool: SqlitePool,
    _db: TestDb,
}

impl Ground {
    pub(crate) async fn new(connections: u32) -> Self {
        let bench = Bench::new(
            Config::default()
                .detail(Detail::Backtrace)
                .threshold(THRESHOLD)
                .idle_in_transaction(THRESHOLD),
        );
        let db = sqlite_database().await;
        let pool = bench.open_pool::<Sqlite>(&db, connections, PATIENCE).await;
        let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT)";
        sqlx::query(table).execute(&pool).await.expect("a table");
        let row = "INSERT INTO orders VALUES (7, 'paid')";
        sqlx::query(row).execute(&pool).await.expect("a row");
        Self {
            bench,
            pool,
            _db: db,
        }
    }

    /// Serves these routes, inside of the layer.
    pub(crate) async fn serve(&self, app: Router<SqlitePool>) -> SocketAddr {
        let app = app
            .layer(self.bench.monitor.layer())
            .with_state(self.pool.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        addr
    }

    /// The first report says all of this.
    pub(crate) async fn first_report(&self, words: &[&str]) -> Finding {
        let findings = &self.bench.findings;
        let first = findings
            .wait_for("a report", PATIENCE, |findings| findings.first().cloned())
            .await;
        assert_names(&first.to_string(), words);
        first
    }

    /// Every connection is back, and nothing was said.
    pub(crate) async fn silent(&self) {
        eventually("all is back", PATIENCE, async || {
            let status = self.pool.status();
            match status.held + status.returning + status.waiting {
                0 => Ok(()),
                _ => Err(status),
            }
        })
        .await;
        let said = self.bench.findings.all();
        assert!(said.is_empty(), "{}", said[0]);
    }
}

/// Sends a request with this id, and waits for its answer to the end.
pub(crate) async fn ask(addr: SocketAddr, line: &str, id: &str) -> String {
    let mut socket = TcpStream::connect(addr).await.expect("the server listens");
    let head = format!(
        "{line} HTTP/1.1\r\nhost: test\r\nx-request-id: {id}\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let read = socket.read_to_string(&mut answer);
    let read = tokio::time::timeout(PATIENCE, read).await;
    read.expect("in time").expect("connected");
    answer
}
