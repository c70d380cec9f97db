//! HTTP/2: a hundred requests on one socket and ten connections in the pool, some of them reset.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::routing::{get, post};
use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use leaktrace::{Detail, RequestCounts, SqlitePool};
use sqlx::Sqlite;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::bench::{Bench, PATIENCE};
use crate::support::db::{TestDb, sqlite_database};
use crate::support::eventually;
use crate::web::{Book, back_and_silent, serve};

const STREAMS: usize = 100;
const CONNECTIONS: usize = 10;

#[derive(Clone)]
struct Context {
    pool: SqlitePool,
    gate: Arc<Semaphore>,
    arrived: Arc<AtomicUsize>,
    /// Who has got a connection.
    holding: Arc<Mutex<Vec<usize>>>,
    book: Book,
}

/// Holds a connection until the gate is opened.
async fn holds(State(context): State<Context>, Path(number): Path<usize>) {
    context.arrived.fetch_add(1, Ordering::Relaxed);
    let mut conn = context.pool.acquire().await.expect("in time");
    context.holding.lock().expect("not poisoned").push(number);
    context.gate.acquire().await.expect("open").forget();
    let query = sqlx::query("SELECT 1");
    query.execute(&mut *conn).await.expect("a row");
}

struct Service {
    bench: Bench,
    context: Context,
    addr: SocketAddr,
    _db: TestDb,
}

impl Service {
    async fn start() -> Self {
        let bench = Bench::new(crate::web::patient().detail(Detail::Backtrace));
        let db = sqlite_database().await;
        let connections = u32::try_from(CONNECTIONS).expect("ten");
        // More patient than the test, so that its last words tell what was missing.
        let pool = bench
            .open_pool::<Sqlite>(&db, connections, PATIENCE * 3)
            .await;
        let context = Context {
            book: Book::new(&pool).await,
            pool,
            gate: Arc::new(Semaphore::new(0)),
            arrived: Arc::default(),
            holding: Arc::default(),
        };
        let app = Router::new()
            .route("/holds/{number}", get(holds))
            .route("/upload", post(upload))
            .layer(bench.monitor.layer())
            .with_state(context.clone());
        let addr = serve(app).await;
        Self {
            bench,
            context,
            addr,
            _db: db,
        }
    }

    async fn ended(&self) -> RequestCounts {
        self.bench.monitor.requests()
    }
}

async fn connect<B>(addr: SocketAddr) -> SendRequest<B>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let socket = TcpStream::connect(addr).await.expect("the server listens");
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(socket))
        .await
        .expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

/// A hundred streams of one socket, of which as many hold as there are connections.
async fn streams(service: &Service) -> Vec<JoinHandle<StatusCode>> {
    let sender = connect::<Empty<Bytes>>(service.addr).await;
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let mut sender = sender.clone();
        let request = Request::get(format!("http://test/holds/{number}"));
        let request = request.body(Empty::new()).expect("a request");
        streams.push(tokio::spawn(async move {
            let answer = sender.send_request(request).await.expect("an answer");
            let status = answer.status();
            answer.into_body().collect().await.expect("a whole body");
            status
        }));
    }
    let wanted = (STREAMS, CONNECTIONS, STREAMS - CONNECTIONS);
    eventually("ten hold and ninety wait", PATIENCE, async || {
        let status = service.context.pool.status();
        let arrived = service.context.arrived.load(Ordering::Relaxed);
        match (arrived, status.held as usize, status.waiting as usize) {
            seen if seen == wanted => Ok(()),
            seen => Err(seen),
        }
    })
    .await;
    streams
}

#[tokio::test]
async fn of_a_hundred_streams_those_that_are_reset_give_back_what_they_held() {
    let service = Service::start().await;
    let streams = streams(&service).await;
    let holding = service
        .context
        .holding
        .lock()
        .expect("not poisoned")
        .clone();
    // Half of those that hold one, and some of those that wait for one.
    let mut cut: Vec<usize> = holding.iter().copied().take(CONNECTIONS / 2).collect();
    let waiting = (0..STREAMS).filter(|number| !holding.contains(number));
    cut.extend(waiting.step_by(5));
    let of_these = cut.len();
    for number in &cut {
        streams[*number].abort();
    }
    eventually("reset", PATIENCE, async || {
        match service.ended().await.cancelled as usize {
            seen if seen == of_these => Ok(()),
            seen => Err(seen),
        }
    })
    .await;
    let counts = service.bench.monitor.cancelled();
    assert_eq!(counts.idle as usize, CONNECTIONS / 2, "{counts:?}");
    service.context.gate.add_permits(STREAMS);
    for (number, stream) in streams.into_iter().enumerate() {
        match stream.await {
            Ok(status) => assert_eq!(status, StatusCode::OK, "{number}"),
            Err(error) => assert!(error.is_cancelled() && cut.contains(&number), "{number}"),
        }
    }
    let ended = service.ended().await;
    let ended = (ended.completed as usize, ended.cancelled as usize);
    assert_eq!(ended, (STREAMS - of_these, of_these));
    back_and_silent(&service.bench, &service.context.pool).await;
}

#[tokio::test]
async fn a_hundred_streams_that_stay_are_all_served() {
    let service = Service::start().await;
    let streams = streams(&service).await;
    service.context.gate.add_permits(STREAMS);
    for stream in streams {
        assert_eq!(stream.await.expect("not reset"), StatusCode::OK);
    }
    let ended = service.ended().await;
    assert_eq!((ended.completed as usize, ended.cancelled), (STREAMS, 0));
    assert_eq!(service.bench.monitor.cancelled(), Default::default());
    back_and_silent(&service.bench, &service.context.pool).await;
}

/// Writes each part into one transaction.
async fn upload(State(context): State<Context>, body: Body) -> Result<(), StatusCode> {
    context.book.write(&context.pool, body).await
}

/// A part, and then nothing, or the end.
fn parts(
    end: bool,
) -> Request<impl http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin> {
    let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(
        b"half",
    )))]);
    let rest = match end {
        true => stream::empty().boxed(),
        false => stream::pending().boxed(),
    };
    let body = StreamBody::new(first.chain(rest));
    Request::post("http://test/upload")
        .body(body)
        .expect("a request")
}

#[tokio::test]
async fn an_upload_that_is_reset_midway_is_rolled_back() {
    let service = Service::start().await;
    let mut sender = connect(service.addr).await;
    let call = tokio::spawn(async move { sender.send_request(parts(false)).await.is_ok() });
    service.context.book.has_written(1).await;
    call.abort();
    // It is dropped, or has read the error by then and decided itself: either way it is over.
    eventually("over", PATIENCE, async || {
        let counts = service.ended().await;
        counts.cancelled + counts.completed == 1
    })
    .await;
    back_and_silent(&service.bench, &service.context.pool).await;
    assert_eq!(service.context.book.rows(&service.context.pool).await, 0);
}

#[tokio::test]
async fn an_upload_that_ends_is_saved() {
    let service = Service::start().await;
    let mut sender = connect(service.addr).await;
    let answer = sender.send_request(parts(true)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    back_and_silent(&service.bench, &service.context.pool).await;
    assert_eq!(service.context.book.rows(&service.context.pool).await, 1);
}
