//! Endings that are nobody's departure: panics, errors, timeouts; and scopes that never mix.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use futures::{StreamExt, stream};
use leaktrace::{Monitor, Scope};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::support::{Ends, ended, exchange, get as fetch, monitor, scope_name, serve};

fn app() -> Router {
    Router::new()
        .route("/panics", get(panics))
        .route("/panics-later", get(panics_later))
        .route("/body-panics", get(body_panics))
        .route("/body-fails", get(body_fails))
        .route("/never", get(pending::<()>))
        .route("/fine", get(|| async { "fine" }))
}

async fn panics() {
    panic!("on purpose, at the first poll")
}

async fn panics_later() {
    tokio::task::yield_now().await;
    panic!("on purpose, at the second poll")
}

async fn body_panics() -> Body {
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"first"))]);
    Body::from_stream(first.chain(stream::once(async { panic!("on purpose, in the body") })))
}

async fn body_fails() -> Body {
    let first = stream::iter([Ok(Bytes::from_static(b"first"))]);
    Body::from_stream(first.chain(stream::iter([Err(std::io::Error::other("on purpose"))])))
}

#[tokio::test]
async fn a_panic_is_told_from_a_client_that_left() {
    for path in ["/panics", "/panics-later", "/body-panics"] {
        let monitor = monitor();
        let addr = serve(app().layer(monitor.layer())).await;
        fetch(addr, path).await;
        ended(&monitor, Ends::panicked(1)).await;
    }
}

#[tokio::test]
async fn a_panic_leaves_no_scope_behind_on_its_thread() {
    let monitor = monitor();
    let app = app().layer(CatchPanicLayer::new()).layer(monitor.layer());
    let bare = Router::new().route("/bare", get(|| async { scope_name() }));
    let (addr, bare) = (serve(app).await, serve(bare).await);
    fetch(addr, "/panics").await;
    assert!(fetch(bare, "/bare").await.ends_with("\r\n\r\n-"));
}

#[tokio::test]
async fn a_panic_caught_inside_the_layer_is_an_answer() {
    let monitor = monitor();
    let addr = serve(app().layer(CatchPanicLayer::new()).layer(monitor.layer())).await;
    assert!(fetch(addr, "/panics").await.starts_with("HTTP/1.1 500"));
    ended(&monitor, Ends::completed(1)).await;
}

#[tokio::test]
async fn a_panic_caught_outside_the_layer_went_through_it() {
    let monitor = monitor();
    let addr = serve(app().layer(monitor.layer()).layer(CatchPanicLayer::new())).await;
    assert!(fetch(addr, "/panics").await.starts_with("HTTP/1.1 500"));
    ended(&monitor, Ends::panicked(1)).await;
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_millis(50))
}

#[tokio::test]
async fn a_timeout_inside_the_layer_is_an_answer() {
    let monitor = monitor();
    let addr = serve(app().layer(timeout()).layer(monitor.layer())).await;
    assert!(fetch(addr, "/never").await.starts_with("HTTP/1.1 408"));
    ended(&monitor, Ends::completed(1)).await;
}

#[tokio::test]
async fn a_timeout_outside_the_layer_cancels_the_request() {
    let monitor = monitor();
    let addr = serve(app().layer(monitor.layer()).layer(timeout())).await;
    assert!(fetch(addr, "/never").await.starts_with("HTTP/1.1 408"));
    ended(&monitor, Ends::cancelled(1)).await;
}

#[tokio::test]
async fn a_body_that_fails_is_an_error() {
    let monitor = monitor();
    let addr = serve(app().layer(monitor.layer())).await;
    fetch(addr, "/body-fails").await;
    let errored = Ends {
        errored: 1,
        ..Ends::default()
    };
    ended(&monitor, errored).await;
}

/// A service that returns an error; axum wants it handled, so the handling stands outside.
#[tokio::test]
async fn a_service_that_fails_is_an_error() {
    use axum::error_handling::HandleErrorLayer;
    let monitor = monitor();
    let stack = tower::ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_: tower::BoxError| async {
            StatusCode::BAD_GATEWAY
        }))
        .layer(monitor.layer())
        .layer_fn(|_: axum::routing::Route| {
            tower::service_fn(|_: axum::extract::Request| async {
                Err::<axum::response::Response, tower::BoxError>("on purpose".into())
            })
        });
    let addr = serve(app().layer(stack)).await;
    assert!(fetch(addr, "/fine").await.starts_with("HTTP/1.1 502"));
    let errored = Ends {
        errored: 1,
        ..Ends::default()
    };
    ended(&monitor, errored).await;
}

async fn stays(Path(id): Path<u32>) -> String {
    let inside = |task: &'static str| async move {
        let mut seen = Vec::new();
        for _ in 0..20 {
            seen.push(scope_name());
            tokio::task::yield_now().await;
        }
        seen.dedup();
        format!("{task}: {}", seen.join(" then "))
    };
    let job = Scope::new(format!("job {id}"));
    let carried = Scope::current()
        .expect("in a request")
        .run(inside("carried"));
    let (own, other, carried, bare) = tokio::join!(
        inside("own"),
        job.run(inside("job")),
        tokio::spawn(carried),
        tokio::spawn(inside("bare"))
    );
    let (carried, bare) = (carried.expect("no panic"), bare.expect("no panic"));
    format!("{own}, {other}, {carried}, {bare}")
}

#[tokio::test]
async fn scopes_of_one_task_and_of_many_never_mix() {
    let monitor = monitor();
    let app = Router::new()
        .route("/stays/{id}", get(stays))
        .layer(monitor.layer());
    let addr = serve(app).await;
    let requests = (0..20).map(|id| async move {
        let answer = exchange(addr, &format!("GET /stays/{id}"), "").await;
        let expected =
            format!("own: GET /stays/{{id}}, job: job {id}, carried: GET /stays/{{id}}, bare: -");
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.ends_with(&expected), "{answer}");
    });
    futures::future::join_all(requests).await;
    ended(&monitor, Ends::completed(20)).await;
}

/// Monitors of other servers in the same process see nothing of it.
#[tokio::test]
async fn each_monitor_counts_its_own_requests() {
    let (ours, theirs): (Monitor, Monitor) = (monitor(), monitor());
    let addr = serve(app().layer(ours.layer())).await;
    let _other = serve(app().layer(theirs.layer())).await;
    fetch(addr, "/fine").await;
    ended(&ours, Ends::completed(1)).await;
    assert_eq!(Ends::of(&theirs), Ends::default());
}
