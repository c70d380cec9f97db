//! gRPC with a connection in hand: unary, server streaming, client streaming; cancelled, past their
//! deadline, and to the end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use axum::http::uri::PathAndQuery;
use axum::http::{Request as HttpRequest, Response as HttpResponse};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use leaktrace::{CancelCounts, Detail, SqlitePool};
use sqlx::Sqlite;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::{Service, service_fn};

use crate::bench::{Bench, PATIENCE};
use crate::support::db::{TestDb, sqlite_database};
use crate::support::eventually;
use crate::text::Text;
use crate::web::{Book, back_and_silent, patient};

type Answers = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

#[derive(Clone)]
struct Orders {
    pool: SqlitePool,
    book: Book,
    gate: Arc<Semaphore>,
}

impl Orders {
    /// Writes, and waits at the gate with its transaction open.
    async fn ship(self, _: Request<String>) -> Result<Response<String>, Status> {
        let mut tx = self.pool.begin().await.expect("free");
        self.book.row(&mut tx, 1).await;
        self.gate.acquire().await.expect("open").forget();
        tx.commit().await.expect("saved");
        Ok(Response::new("shipped".into()))
    }

    /// Holds its connection until its last message.
    async fn list(self, _: Request<String>) -> Result<Response<Answers>, Status> {
        Ok(Response::new(Box::pin(async_stream::stream! {
            let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) SELECT i FROM n";
            let mut rows = sqlx::query_scalar::<_, i64>(sql).fetch(&self.pool);
            while let Some(row) = rows.try_next().await.expect("no error") {
                yield Ok(row.to_string());
                if row == 2 {
                    self.gate.acquire().await.expect("open").forget();
                }
            }
        })))
    }

    /// Writes each message into one transaction. tonic shows a cancelled stream like one that has ended,
    /// so the last message says that it is the last.
    async fn collect(
        self,
        request: Request<Streaming<String>>,
    ) -> Result<Response<String>, Status> {
        let mut tx = self.pool.begin().await.expect("free");
        let mut parts = request.into_inner();
        while let Some(part) = parts.next().await {
            let part = part?;
            if part == "end" {
                tx.commit().await.expect("saved");
                return Ok(Response::new("collected".into()));
            }
            self.book.row(&mut tx, part.len()).await;
        }
        Err(Status::aborted("no end"))
    }
}

impl NamedService for Orders {
    const NAME: &'static str = "shop.v1.Orders";
}

impl Service<HttpRequest<Body>> for Orders {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let orders = self.clone();
        let mut grpc = tonic::server::Grpc::new(Text);
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/shop.v1.Orders/Ship" => {
                    let ship = service_fn(move |request| orders.clone().ship(request));
                    grpc.unary(ship, request).await
                }
                "/shop.v1.Orders/List" => {
                    let list = service_fn(move |request| orders.clone().list(request));
                    grpc.server_streaming(list, request).await
                }
                _ => {
                    let collect = service_fn(move |request| orders.clone().collect(request));
                    grpc.client_streaming(collect, request).await
                }
            })
        })
    }
}

struct Ground {
    bench: Bench,
    orders: Orders,
    client: tonic::client::Grpc<Channel>,
    _db: TestDb,
}

impl Ground {
    async fn new() -> Self {
        let bench = Bench::new(patient().detail(Detail::Backtrace));
        let db = sqlite_database().await;
        let pool = bench.open_pool::<Sqlite>(&db, 1, PATIENCE).await;
        let orders = Orders {
            book: Book::new(&pool).await,
            pool,
            gate: Arc::new(Semaphore::new(0)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let server = Server::builder()
            .layer(bench.monitor.layer())
            .add_service(orders.clone())
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let channel = Channel::from_shared(format!("http://{addr}")).expect("an address");
        let mut client = tonic::client::Grpc::new(channel.connect_lazy());
        client.ready().await.expect("the server listens");
        Self {
            bench,
            orders,
            client,
            _db: db,
        }
    }

    /// The one request was cut, with this in hand; nothing of it was saved.
    async fn was_cut(&self) -> CancelCounts {
        eventually("cut", PATIENCE, async || {
            self.bench.monitor.requests().cancelled == 1
        })
        .await;
        back_and_silent(&self.bench, &self.orders.pool).await;
        assert_eq!(self.orders.book.rows(&self.orders.pool).await, 0);
        self.bench.monitor.cancelled()
    }

    /// The one request was completed, and so many rows were saved.
    async fn has_saved(&self, rows: i64) {
        eventually("complete", PATIENCE, async || {
            self.bench.monitor.requests().completed == 1
        })
        .await;
        assert_eq!(self.bench.monitor.cancelled(), CancelCounts::default());
        back_and_silent(&self.bench, &self.orders.pool).await;
        assert_eq!(self.orders.book.rows(&self.orders.pool).await, rows);
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/shop.v1.Orders/{method}").parse().expect("a path")
}

type Called<T> = Result<Response<T>, Status>;

#[tokio::test]
async fn a_unary_call_that_is_cancelled_is_rolled_back() {
    let ground = Ground::new().await;
    let mut client = ground.client.clone();
    let call = tokio::spawn(async move {
        client.ready().await.expect("connected");
        let request = Request::new(String::new());
        let answer: Called<String> = client.unary(request, path("Ship"), Text).await;
        answer.is_ok()
    });
    ground.orders.book.has_written(1).await;
    call.abort();
    assert_eq!(ground.was_cut().await.idle, 1);
}

#[tokio::test]
async fn a_unary_call_past_its_deadline_is_rolled_back() {
    let mut ground = Ground::new().await;
    let mut request = Request::new(String::new());
    // Long enough for the write on a busy machine; the answer never comes.
    request.set_timeout(Duration::from_secs(2));
    let late: Called<String> = ground.client.unary(request, path("Ship"), Text).await;
    let late = late.expect_err("nobody opens the gate");
    assert!(
        matches!(late.code(), Code::Cancelled | Code::DeadlineExceeded),
        "{late}"
    );
    assert_eq!(ground.was_cut().await.idle, 1);
}

#[tokio::test]
async fn a_unary_call_that_is_answered_is_saved() {
    let mut ground = Ground::new().await;
    ground.orders.gate.add_permits(1);
    let request = Request::new(String::new());
    let answer: Called<String> = ground.client.unary(request, path("Ship"), Text).await;
    assert_eq!(answer.expect("an answer").into_inner(), "shipped");
    ground.has_saved(1).await;
}

#[tokio::test]
async fn a_server_stream_that_is_dropped_gives_its_connection_back() {
    let mut ground = Ground::new().await;
    let request = Request::new(String::new());
    let answer = ground.client.server_streaming(request, path("List"), Text);
    let mut rows: Streaming<String> = answer.await.expect("a stream").into_inner();
    assert_eq!(rows.next().await.expect("a row").expect("no error"), "1");
    assert_eq!(ground.orders.pool.status().held, 1);
    drop(rows);
    assert_eq!(ground.was_cut().await.statement, 1);
}

#[tokio::test]
async fn a_server_stream_that_is_read_gives_its_connection_back_at_its_end() {
    let mut ground = Ground::new().await;
    ground.orders.gate.add_permits(1);
    let request = Request::new(String::new());
    let answer = ground.client.server_streaming(request, path("List"), Text);
    let rows: Streaming<String> = answer.await.expect("a stream").into_inner();
    assert_eq!(
        rows.try_collect::<Vec<_>>().await.expect("no error").len(),
        1_000
    );
    ground.has_saved(0).await;
}

#[tokio::test]
async fn a_client_stream_that_is_cancelled_is_rolled_back() {
    let ground = Ground::new().await;
    let mut client = ground.client.clone();
    let parts = stream::iter(["a".to_owned(), "b".to_owned()]).chain(stream::pending());
    let call = tokio::spawn(async move {
        client.ready().await.expect("connected");
        let request = Request::new(parts);
        let answer: Called<String> = client
            .client_streaming(request, path("Collect"), Text)
            .await;
        answer.is_ok()
    });
    ground.orders.book.has_written(2).await;
    call.abort();
    // Its handler is dropped, or has seen the end of the stream by then: either way it is over.
    eventually("over", PATIENCE, async || {
        let counts = ground.bench.monitor.requests();
        counts.cancelled + counts.completed == 1
    })
    .await;
    back_and_silent(&ground.bench, &ground.orders.pool).await;
    assert_eq!(ground.orders.book.rows(&ground.orders.pool).await, 0);
}

#[tokio::test]
async fn a_client_stream_that_ends_is_saved() {
    let mut ground = Ground::new().await;
    let parts = stream::iter(["a", "b", "end"].map(String::from));
    let request = Request::new(parts);
    let answer = ground
        .client
        .client_streaming(request, path("Collect"), Text);
    let answer: Called<String> = answer.await;
    assert_eq!(answer.expect("an answer").into_inner(), "collected");
    ground.has_saved(2).await;
}
