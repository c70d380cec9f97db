//! HTTP/2: many streams on one connection, cut one by one, and the same answers.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::routing::get;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::answers;
use crate::support::{Dropped, Ends, Log, ended, monitor, scope_name, serve, until};

async fn connect<B>(addr: SocketAddr) -> SendRequest<B>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    greet(TcpStream::connect(addr).await.expect("the server listens")).await
}

async fn greet<B>(socket: TcpStream) -> SendRequest<B>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(socket))
        .await
        .expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

fn request(line: &str) -> Request<Empty<Bytes>> {
    let (method, path) = line.split_once(' ').expect("method and path");
    Request::builder()
        .method(Method::from_bytes(method.as_bytes()).expect("a method"))
        .uri(format!("http://test{path}"))
        .header("te", "trailers")
        .body(Empty::new())
        .expect("a request")
}

type Answer = (StatusCode, HeaderMap, Vec<u8>, Option<HeaderMap>);

async fn answer(sender: &mut SendRequest<Empty<Bytes>>, line: &str) -> Answer {
    let response = sender.send_request(request(line)).await.expect("an answer");
    let (mut head, body) = response.into_parts();
    head.headers.remove("date");
    let collected = body.collect().await.expect("a whole body");
    let trailers = collected.trailers().cloned();
    (
        head.status,
        head.headers,
        collected.to_bytes().to_vec(),
        trailers,
    )
}

#[tokio::test]
async fn every_answer_is_the_same_with_the_layer_and_complete() {
    let monitor = monitor();
    let mut plain = connect(serve(answers::app()).await).await;
    let mut layered = connect(serve(answers::app().layer(monitor.layer())).await).await;
    let mut number = 0;
    let mut trailers = 0;
    for (line, _) in answers::REQUESTS {
        if line.contains("/declared") || line.contains("-unasked") {
            continue; // Their streams have no end, and over HTTP/2 the server asks for one.
        }
        let expected = answer(&mut plain, line).await;
        assert_eq!(expected, answer(&mut layered, line).await, "{line}");
        trailers += usize::from(expected.3.is_some());
        number += 1;
        ended(&monitor, Ends::completed(number)).await;
    }
    assert_ne!(trailers, 0, "the harness sees trailers");
}

#[tokio::test]
async fn of_a_hundred_streams_on_one_connection_each_ends_its_own_way() {
    async fn handler(Path(number): Path<u32>, log: Log) -> Body {
        log.add(format!("in {}", scope_name()));
        match number % 4 {
            0 => "at once".into(),
            1 => pending().await,
            2 => Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>()),
            _ => panic!("on purpose"),
        }
    }
    let (monitor, log) = (monitor(), Log::default());
    let handler_log = log.clone();
    let app = Router::new()
        .route(
            "/{number}",
            get(move |number| handler(number, handler_log.clone())),
        )
        // A panic takes the whole connection with it unless it is caught; here it went through us.
        .layer(monitor.layer())
        .layer(tower_http::catch_panic::CatchPanicLayer::new());
    let sender = connect(serve(app).await).await;
    let mut streams = Vec::new();
    for number in 0..100 {
        let mut sender = sender.clone();
        streams.push(tokio::spawn(async move {
            let response = sender
                .send_request(request(&format!("GET /{number}")))
                .await;
            let response = response.expect("an answer");
            if number % 4 == 2 {
                return; // The head is here, the body is dropped.
            }
            response.into_body().collect().await.expect("a whole body");
        }));
    }
    assert!(until(|| log.lines().len() == 100).await);
    assert!(log.lines().iter().all(|line| line == "in GET /{number}"));
    for (number, stream) in streams.into_iter().enumerate() {
        if number % 4 == 1 {
            stream.abort();
            assert!(stream.await.is_err(), "cut before its response");
        } else {
            stream.await.expect("it got what it asked for");
        }
    }
    let expected = Ends {
        completed: 25,
        cancelled: 50,
        panicked: 25,
        errored: 0,
    };
    ended(&monitor, expected).await;
}

#[tokio::test]
async fn a_connection_that_breaks_cancels_all_its_streams() {
    let monitor = monitor();
    let log = Log::default();
    let handler_log = log.clone();
    let app = Router::new()
        .route(
            "/never",
            get(move || async move {
                handler_log.add("in");
                pending::<()>().await
            }),
        )
        .layer(monitor.layer());
    let addr = serve(app).await;
    let socket = std::net::TcpStream::connect(addr).expect("the server listens");
    let same_socket = socket.try_clone().expect("a second handle");
    socket.set_nonblocking(true).expect("a socket");
    let sender = greet(TcpStream::from_std(socket).expect("a socket")).await;
    for _ in 0..30 {
        let mut sender: SendRequest<Empty<Bytes>> = sender.clone();
        tokio::spawn(async move { sender.send_request(request("GET /never")).await.is_ok() });
    }
    assert!(until(|| log.lines().len() == 30).await);
    assert_eq!(Ends::of(&monitor), Ends::default());
    same_socket
        .shutdown(std::net::Shutdown::Both)
        .expect("still open");
    ended(&monitor, Ends::cancelled(30)).await;
}

#[tokio::test]
async fn a_stream_reset_mid_upload_cancels_the_request() {
    use futures::{StreamExt, stream};
    let (monitor, log) = (monitor(), Log::default());
    let (handler_log, handler_monitor) = (log.clone(), monitor.clone());
    let app = Router::new()
        .route(
            "/upload",
            axum::routing::post(move |body: Body| async move {
                let _dropped = Dropped(handler_log.clone(), handler_monitor);
                let mut parts = body.into_data_stream();
                while let Some(Ok(part)) = parts.next().await {
                    handler_log.add(format!("got {} bytes", part.len()));
                }
                pending::<()>().await
            }),
        )
        .layer(monitor.layer());
    let frames = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(
        b"half",
    )))]);
    let upload = StreamBody::new(frames.chain(stream::pending()));
    let request = Request::post("http://test/upload")
        .body(upload)
        .expect("a request");
    let mut sender = connect(serve(app).await).await;
    let call = tokio::spawn(async move { sender.send_request(request).await.is_ok() });
    log.has("got 4 bytes").await;
    call.abort();
    ended(&monitor, Ends::cancelled(1)).await;
    log.has("dropped in POST /upload, 1 cancelled").await;
}
