//! A server on loopback, and a client made of a bare socket.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::PATIENCE;

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
        let mut socket = TcpStream::connect(addr).await.expect("the server listens");
        let head = format!(
            "{line} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
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
