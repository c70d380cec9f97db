//! The layer inside and outside of tower-http's, as real types and per route.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use leaktrace::Monitor;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::answers::{REQUESTS, app, dateless};
use crate::support::{Ends, ended, exchange, monitor, serve};

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(30))
}

/// Asks the same of both, with and without compression and CORS.
async fn assert_same(plain: SocketAddr, layered: SocketAddr, monitor: &Monitor) {
    let mut number = 0;
    for (line, headers) in REQUESTS {
        for more in [
            "",
            "accept-encoding: gzip\r\n",
            "origin: https://example.org\r\n",
        ] {
            let headers = format!("{headers}{more}");
            let expected = dateless(&exchange(plain, line, &headers).await);
            let seen = dateless(&exchange(layered, line, &headers).await);
            assert!(expected == seen, "{line} {headers:?}");
            number += 1;
            eprintln!("{line} {headers:?}");
            ended(monitor, Ends::completed(number)).await;
        }
    }
}

/// The unboxed stack: each layer's bounds on the body must hold for the body of the next.
macro_rules! around {
    ($($layer:expr),*) => { app().layer(ServiceBuilder::new()$(.layer($layer))*) };
}

macro_rules! inside_and_outside {
    ($($test:ident: $other:expr;)*) => {$(
        #[tokio::test]
        async fn $test() {
            let plain = serve(around!($other)).await;
            let monitor = monitor();
            let outside = serve(around!(monitor.layer(), $other)).await;
            assert_same(plain, outside, &monitor).await;
            let monitor = crate::support::monitor();
            let inside = serve(around!($other, monitor.layer())).await;
            assert_same(plain, inside, &monitor).await;
        }
    )*};
}

inside_and_outside! {
    inside_and_outside_of_trace: TraceLayer::new_for_http();
    inside_and_outside_of_timeout: timeout();
    inside_and_outside_of_compression: CompressionLayer::new();
    inside_and_outside_of_catch_panic: CatchPanicLayer::new();
}

#[tokio::test]
async fn outside_of_cors_every_request_is_seen() {
    let plain = serve(around!(CorsLayer::permissive())).await;
    let monitor = monitor();
    let outside = serve(around!(monitor.layer(), CorsLayer::permissive())).await;
    assert_same(plain, outside, &monitor).await;
}

#[tokio::test]
async fn inside_of_cors_a_preflight_is_no_request_of_ours() {
    let monitor = monitor();
    let inside = serve(around!(CorsLayer::permissive(), monitor.layer())).await;
    let preflight = "origin: https://example.org\r\naccess-control-request-method: GET\r\n";
    exchange(inside, "OPTIONS /full", preflight).await;
    exchange(inside, "GET /full", "origin: https://example.org\r\n").await;
    ended(&monitor, Ends::completed(1)).await;
}

#[tokio::test]
async fn in_the_middle_of_all_of_them() {
    let plain = serve(around!(
        TraceLayer::new_for_http(),
        CompressionLayer::new(),
        CatchPanicLayer::new(),
        timeout()
    ))
    .await;
    let monitor = monitor();
    let middle = serve(around!(
        TraceLayer::new_for_http(),
        CompressionLayer::new(),
        monitor.layer(),
        CatchPanicLayer::new(),
        timeout()
    ))
    .await;
    assert_same(plain, middle, &monitor).await;
}

#[tokio::test]
async fn on_one_route_only_that_route_is_counted() {
    let monitor = monitor();
    let app = Router::new()
        .route("/seen", get(|| async { "seen" }).layer(monitor.layer()))
        .route("/unseen", get(|| async { "unseen" }));
    let addr = serve(app).await;
    exchange(addr, "GET /unseen", "").await;
    exchange(addr, "GET /seen", "").await;
    exchange(addr, "HEAD /seen", "").await;
    ended(&monitor, Ends::completed(2)).await;
}
