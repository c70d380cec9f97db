//! The answer with the layer is byte for byte the answer without it, and bodies that nobody polls
//! are complete.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use leaktrace::Detail;

use crate::support::{Ends, ended, exchange, monitor, read_to_end, send, serve};

pub(crate) fn app() -> Router {
    Router::new()
        .route("/full", get(|| async { "all of it" }))
        .route("/empty", get(|| async {}))
        .route("/not-found", get(|| async { StatusCode::NOT_FOUND }))
        .route("/no-content", get(|| async { StatusCode::NO_CONTENT }))
        .route(
            "/reset-content",
            get(|| async { StatusCode::RESET_CONTENT }),
        )
        .route("/not-modified", get(not_modified))
        .route("/large", get(|| async { vec![b'x'; 1 << 20] }))
        .route(
            "/chunked",
            get(|| async { Body::from_stream(chunks(&["one", "two", "three"])) }),
        )
        .route("/declared", get(declared))
        .route("/declared-empty", get(declared_empty))
        .route(
            "/no-content-unasked",
            get(|| unasked(StatusCode::NO_CONTENT)),
        )
        .route(
            "/not-modified-unasked",
            get(|| unasked(StatusCode::NOT_MODIFIED)),
        )
        .route("/trailers", get(trailers))
        .route(
            "/upload",
            post(|body: Bytes| async move { body.len().to_string() }),
        )
}

fn chunks(
    parts: &'static [&'static str],
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    stream::iter(
        parts
            .iter()
            .map(|part| Ok(Bytes::from_static(part.as_bytes()))),
    )
}

async fn not_modified() -> impl IntoResponse {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, "\"7\"")])
}

/// A stream whose length is in the head only: the server never asks for its end.
async fn declared() -> impl IntoResponse {
    let endless = stream::StreamExt::chain(chunks(&["12345", "67890"]), stream::pending());
    ([(header::CONTENT_LENGTH, "10")], Body::from_stream(endless))
}

async fn declared_empty() -> impl IntoResponse {
    let endless = stream::pending::<Result<Bytes, Infallible>>();
    ([(header::CONTENT_LENGTH, "0")], Body::from_stream(endless))
}

/// A body where none may be: the server drops it without a look.
async fn unasked(status: StatusCode) -> impl IntoResponse {
    let endless = stream::pending::<Result<Bytes, Infallible>>();
    (status, Body::from_stream(endless))
}

async fn trailers() -> impl IntoResponse {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "7".parse().expect("a header value"));
    let frames = [
        Frame::data(Bytes::from_static(b"data")),
        Frame::trailers(trailers),
    ];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    ([(header::TRAILER, "x-checksum")], Body::new(body))
}

pub(crate) const REQUESTS: &[(&str, &str)] = &[
    ("GET /full", ""),
    ("HEAD /full", ""),
    ("GET /empty", ""),
    ("GET /not-found", ""),
    ("GET /no-content", ""),
    ("GET /reset-content", ""),
    ("GET /not-modified", ""),
    ("HEAD /not-modified", ""),
    ("GET /large", ""),
    ("HEAD /large", ""),
    ("GET /chunked", ""),
    ("HEAD /chunked", ""),
    ("GET /declared", ""),
    ("GET /declared-empty", ""),
    ("GET /no-content-unasked", ""),
    ("GET /not-modified-unasked", ""),
    ("GET /trailers", "te: trailers\r\n"),
    ("GET /trailers", ""),
    ("GET /nowhere", ""),
    ("POST /full", ""),
    ("OPTIONS /full", ""),
    ("BREW /full", ""),
];

/// The bytes of an answer without its date.
pub(crate) fn dateless(answer: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(answer);
    let lines = text
        .split("\r\n")
        .filter(|line| !line.starts_with("date: "));
    lines.collect::<Vec<_>>().join("\r\n").into_bytes()
}

async fn assert_same(plain: SocketAddr, layered: SocketAddr, line: &str, headers: &str) {
    let expected = dateless(&exchange(plain, line, headers).await);
    let seen = dateless(&exchange(layered, line, headers).await);
    assert!(!expected.is_empty(), "{line} has an answer");
    assert!(
        expected == seen,
        "{line}: {:?} became {:?}",
        String::from_utf8_lossy(&expected),
        String::from_utf8_lossy(&seen)
    );
}

#[tokio::test]
async fn every_answer_is_the_same_with_the_layer_and_complete() {
    let monitor = monitor();
    let plain = serve(app()).await;
    let layered = serve(app().layer(monitor.layer())).await;
    for (number, (line, headers)) in (1..).zip(REQUESTS) {
        assert_same(plain, layered, line, headers).await;
        eprintln!("{line}");
        ended(&monitor, Ends::completed(number)).await;
    }
}

#[tokio::test]
async fn every_answer_is_the_same_with_the_layer_on_each_route_and_on_all() {
    let monitor = monitor();
    let plain = serve(app()).await;
    let layered = serve(app().route_layer(monitor.layer()).layer(monitor.layer())).await;
    for (number, (line, headers)) in (1..).zip(REQUESTS) {
        assert_same(plain, layered, line, headers).await;
        eprintln!("{line}");
        ended(&monitor, Ends::completed(number)).await;
    }
}

#[tokio::test]
async fn at_off_every_answer_is_the_same_and_nothing_is_counted() {
    let monitor = monitor();
    monitor.set_detail(Detail::Off);
    let plain = serve(app()).await;
    let layered = serve(app().layer(monitor.layer())).await;
    for (line, headers) in REQUESTS {
        assert_same(plain, layered, line, headers).await;
    }
    assert_eq!(Ends::of(&monitor), Ends::default());
}

#[tokio::test]
async fn an_upload_that_waits_for_continue_is_the_same_with_the_layer() {
    let monitor = monitor();
    let request = "POST /upload HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
                   expect: 100-continue\r\ncontent-length: 3\r\n\r\nabc";
    let mut answers = Vec::new();
    for app in [app(), app().layer(monitor.layer())] {
        let socket = send(serve(app).await, request).await;
        answers.push(dateless(&read_to_end(socket).await));
    }
    assert!(answers[0].starts_with(b"HTTP/1.1 100 Continue"));
    assert_eq!(answers[0], answers[1]);
    ended(&monitor, Ends::completed(1)).await;
}

#[tokio::test]
async fn requests_that_share_a_connection_end_one_by_one() {
    let monitor = monitor();
    let addr = serve(app().layer(monitor.layer())).await;
    let three = "GET /full HTTP/1.1\r\nhost: test\r\n\r\n".repeat(2)
        + "GET /chunked HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    let answer = read_to_end(send(addr, three).await).await;
    assert_eq!(
        String::from_utf8_lossy(&answer)
            .matches("HTTP/1.1 200")
            .count(),
        3
    );
    ended(&monitor, Ends::completed(3)).await;
}

/// The harness proves itself: a layer that changes one byte is seen.
#[tokio::test]
async fn a_changed_answer_would_be_seen() {
    let changed = app().layer(axum::middleware::map_response(
        |mut response: axum::response::Response| async move {
            response
                .headers_mut()
                .insert("x-changed", "1".parse().expect("a value"));
            response
        },
    ));
    let (plain, changed) = (serve(app()).await, serve(changed).await);
    for (line, headers) in REQUESTS {
        let expected = dateless(&exchange(plain, line, headers).await);
        let seen = dateless(&exchange(changed, line, headers).await);
        assert!(expected != seen, "{line}");
    }
}
