//! Answers that live long: server-sent events, and WebSockets, whose request ends with the 101.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{any, get};
use futures::{Stream, StreamExt, stream};
use leaktrace::{Monitor, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Ends, Log, ended, leave, monitor, read_until, scope_name, send, serve};

async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::iter(["one", "two"]).map(|data| Ok(Event::default().data(data)));
    Sse::new(events.chain(stream::pending())).keep_alive(
        KeepAlive::new()
            .interval(Duration::from_millis(20))
            .text("still here"),
    )
}

async fn socket(upgrade: WebSocketUpgrade) -> axum::response::Response {
    let scope = Scope::current();
    upgrade.on_upgrade(move |socket| async move {
        match scope {
            // The request is over; a socket is work of its own.
            Some(_) => Scope::new("socket: echo").run(echo(socket)).await,
            None => echo(socket).await,
        }
    })
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(Message::Text(text))) = socket.recv().await {
        let answer = format!("{text} in {}", scope_name());
        if socket.send(Message::Text(answer.into())).await.is_err() {
            return;
        }
    }
}

fn app(monitor: &Monitor) -> Router {
    Router::new()
        .route("/events", get(events))
        .route("/socket", any(socket))
        .layer(monitor.layer())
}

#[tokio::test]
async fn events_are_one_request_until_the_client_leaves() {
    let monitor = monitor();
    let addr = serve(app(&monitor)).await;
    let mut client = send(addr, "GET /events HTTP/1.1\r\nhost: test\r\n\r\n").await;
    read_until(&mut client, b"data: two").await;
    read_until(&mut client, b"still here").await;
    assert_eq!(
        Ends::of(&monitor),
        Ends::default(),
        "events are still coming"
    );
    leave(client).await;
    ended(&monitor, Ends::cancelled(1)).await;
}

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A text frame as a client sends it: masked, here with zeros.
fn text_frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("short");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[tokio::test]
async fn a_websocket_works_and_its_request_ends_with_the_upgrade() {
    let monitor = monitor();
    let addr = serve(app(&monitor)).await;
    let mut client = send(addr, UPGRADE).await;
    let head = read_until(&mut client, b"\r\n\r\n").await;
    assert!(head.starts_with(b"HTTP/1.1 101"));
    ended(&monitor, Ends::completed(1)).await;
    for text in ["hello", "again"] {
        client
            .write_all(&text_frame(text))
            .await
            .expect("connected");
        let mut head = [0; 2];
        client.read_exact(&mut head).await.expect("an answer");
        let mut answer = vec![0; usize::from(head[1])];
        client.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(answer, format!("{text} in socket: echo").into_bytes());
    }
    leave(client).await;
    assert_eq!(
        Ends::of(&monitor),
        Ends::completed(1),
        "the socket is no request"
    );
}

/// The log of a handler that spawns: what it carries along does not end the request.
#[tokio::test]
async fn a_task_that_outlives_its_request_still_knows_it() {
    let (monitor, log) = (monitor(), Log::default());
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let (task_log, task_gate) = (log.clone(), gate.clone());
    let app = Router::new()
        .route(
            "/spawns",
            get(move || async move {
                let scope = Scope::current().expect("in a request");
                tokio::spawn(scope.run(async move {
                    task_gate.notified().await;
                    task_log.add(format!("later in {}", scope_name()));
                }));
            }),
        )
        .layer(monitor.layer());
    let addr = serve(app).await;
    crate::support::get(addr, "/spawns").await;
    ended(&monitor, Ends::completed(1)).await;
    gate.notify_one();
    log.has("later in GET /spawns").await;
    assert_eq!(Ends::of(&monitor), Ends::completed(1));
}
