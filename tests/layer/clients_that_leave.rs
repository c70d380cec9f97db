//! Clients that disconnect: before the response, in the middle of the body, in the middle of an
//! upload. A cut is a cancellation, known before what the handler held is dropped.

use std::convert::Infallible;
use std::future::pending;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::routing::{get, post};
use futures::{StreamExt, stream};
use leaktrace::Monitor;
use tokio::io::AsyncReadExt;

use crate::support::{
    Dropped, Ends, Log, ended, leave, monitor, read_until, scope_name, send, serve,
};

/// What each handler writes to and asks.
#[derive(Clone)]
struct Context(Log, Monitor);

impl Context {
    fn dropped(&self) -> Dropped {
        Dropped(self.0.clone(), self.1.clone())
    }
}

fn app(monitor: &Monitor, log: &Log) -> Router {
    Router::new()
        .route("/never", get(never))
        .route("/stalls", get(stalls))
        .route("/endless", get(endless))
        .route("/upload", post(upload))
        .route("/extracts", post(|body: Bytes| async move { body }))
        .with_state(Context(log.clone(), monitor.clone()))
        .layer(monitor.layer())
}

async fn never(State(context): State<Context>) {
    let _dropped = context.dropped();
    context.0.add(format!("in {}", scope_name()));
    pending().await
}

/// One chunk, and then nothing for ever.
async fn stalls(State(context): State<Context>) -> Body {
    let dropped = context.dropped();
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"first"))]);
    Body::from_stream(first.chain(stream::once(async move {
        context.0.add(format!("streaming in {}", scope_name()));
        let _dropped = dropped;
        pending().await
    })))
}

async fn endless(State(context): State<Context>) -> Body {
    let dropped = context.dropped();
    Body::from_stream(stream::repeat_with(move || {
        let _ = &dropped;
        Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 4096]))
    }))
}

async fn upload(State(context): State<Context>, body: Body) -> &'static str {
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        match part {
            Ok(part) => context.0.add(format!("got {} bytes", part.len())),
            Err(_) => return "the upload broke off",
        }
    }
    "got all of it"
}

#[tokio::test]
async fn a_client_that_leaves_before_the_response_cancels_the_request() {
    let (monitor, log) = (monitor(), Log::default());
    let addr = serve(app(&monitor, &log)).await;
    let socket = send(addr, "GET /never HTTP/1.1\r\nhost: test\r\n\r\n").await;
    log.has("in GET /never").await;
    assert_eq!(
        Ends::of(&monitor),
        Ends::default(),
        "it is still being served"
    );
    leave(socket).await;
    ended(&monitor, Ends::cancelled(1)).await;
    log.has("dropped in GET /never, 1 cancelled").await;
}

#[tokio::test]
async fn a_client_that_leaves_while_the_body_stalls_cancels_the_request() {
    let (monitor, log) = (monitor(), Log::default());
    let addr = serve(app(&monitor, &log)).await;
    let mut socket = send(addr, "GET /stalls HTTP/1.1\r\nhost: test\r\n\r\n").await;
    read_until(&mut socket, b"first").await;
    log.has("streaming in GET /stalls").await;
    assert_eq!(Ends::of(&monitor), Ends::default(), "its body is under way");
    leave(socket).await;
    ended(&monitor, Ends::cancelled(1)).await;
    log.has("dropped in GET /stalls, 1 cancelled").await;
}

#[tokio::test]
async fn a_client_that_leaves_a_running_body_cancels_the_request() {
    let (monitor, log) = (monitor(), Log::default());
    let addr = serve(app(&monitor, &log)).await;
    let mut socket = send(addr, "GET /endless HTTP/1.1\r\nhost: test\r\n\r\n").await;
    read_until(&mut socket, &[b'x'; 4096]).await;
    assert_eq!(Ends::of(&monitor), Ends::default());
    leave(socket).await;
    ended(&monitor, Ends::cancelled(1)).await;
    log.has("dropped in GET /endless, 1 cancelled").await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_still_being_served() {
    let (monitor, log) = (monitor(), Log::default());
    let addr = serve(app(&monitor, &log)).await;
    let mut socket = send(addr, "GET /endless HTTP/1.1\r\nhost: test\r\n\r\n").await;
    for _ in 0..20 {
        let mut some = [0; 512];
        assert_ne!(socket.read(&mut some).await.expect("connected"), 0);
        tokio::task::yield_now().await;
    }
    assert_eq!(Ends::of(&monitor), Ends::default());
}

/// Over HTTP/1.1 the server does not drop a handler whose upload breaks off: the handler reads an
/// error and decides. So the request ends as the handler ends it, here with an answer nobody reads.
#[tokio::test]
async fn over_http1_a_broken_upload_ends_as_its_handler_ends_it() {
    for path in ["/upload", "/extracts"] {
        let (monitor, log) = (monitor(), Log::default());
        let addr = serve(app(&monitor, &log)).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n");
        let socket = send(addr, head + &"x".repeat(500)).await;
        if path == "/upload" {
            log.has("got 500 bytes").await;
        }
        assert_eq!(Ends::of(&monitor), Ends::default(), "half of it is missing");
        leave(socket).await;
        ended(&monitor, Ends::completed(1)).await;
    }
}

#[tokio::test]
async fn a_hundred_clients_that_leave_are_a_hundred_cancellations() {
    let (monitor, log) = (monitor(), Log::default());
    let addr = serve(app(&monitor, &log)).await;
    let mut sockets = Vec::new();
    for _ in 0..100 {
        sockets.push(send(addr, "GET /never HTTP/1.1\r\nhost: test\r\n\r\n").await);
    }
    let entered = || {
        log.lines()
            .iter()
            .filter(|line| line.starts_with("in "))
            .count()
    };
    assert!(crate::support::until(|| entered() == 100).await);
    for socket in sockets {
        leave(socket).await;
    }
    ended(&monitor, Ends::cancelled(100)).await;
}
