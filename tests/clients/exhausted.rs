//! What callers are told when the pool is exhausted, over HTTP and gRPC.

use std::convert::Infallible;
use std::task::{Context as Poller, Poll};

use axum::Router;
use axum::extract::State;
use axum::http::{Request as HttpRequest, Response as HttpResponse, StatusCode};
use axum::routing::get;
use futures::future::BoxFuture;
use leaktrace::{ScopeLayer, SqlitePool};
use sqlx::Sqlite;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};
use tower::{Service, service_fn};

use crate::bench::{Bench, assert_names, millis};
use crate::support::db::{TestDb, sqlite_database};
use crate::text::Text;
use crate::web::{ask, serve};

async fn pool(bench: &Bench) -> (TestDb, SqlitePool) {
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 1, millis(300)).await;
    (db, pool)
}

async fn orders(State(pool): State<SqlitePool>) -> StatusCode {
    match pool.acquire().await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn http(layer: ScopeLayer, pool: &SqlitePool) -> std::net::SocketAddr {
    let app = Router::new()
        .route("/orders", get(orders))
        .route(
            "/broken",
            get(|| async { StatusCode::INTERNAL_SERVER_ERROR }),
        )
        .layer(layer)
        .with_state(pool.clone());
    serve(app).await
}

#[tokio::test]
async fn over_http_a_500_becomes_503_with_retry_after() {
    let bench = Bench::quick();
    let (_db, pool) = pool(&bench).await;
    let addr = http(bench.monitor.layer().on_exhausted_503(), &pool).await;
    let held = pool.acquire().await.expect("free");
    let answer = ask(addr, "GET /orders").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_names(&answer, &["retry-after: 1"]);
    let broken = ask(addr, "GET /broken").await;
    assert!(
        broken.starts_with("HTTP/1.1 500"),
        "the pool is not to blame: {broken}"
    );
    held.release().await;
    assert!(ask(addr, "GET /orders").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn over_http_it_stays_500_unless_asked_for() {
    let bench = Bench::quick();
    let (_db, pool) = pool(&bench).await;
    let addr = http(bench.monitor.layer(), &pool).await;
    let _held = pool.acquire().await.expect("free");
    let answer = ask(addr, "GET /orders").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
}

#[derive(Clone)]
struct Orders(SqlitePool);

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
        let pool = self.0.clone();
        Box::pin(async move {
            let list = service_fn(move |_: Request<String>| {
                let pool = pool.clone();
                async move {
                    match pool.acquire().await {
                        Ok(_) => Ok(Response::new(String::new())),
                        Err(error) => Err(Status::internal(error.to_string())),
                    }
                }
            });
            Ok(tonic::server::Grpc::new(Text).unary(list, request).await)
        })
    }
}

async fn code(layer: ScopeLayer, pool: &SqlitePool) -> Code {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let server = Server::builder()
        .layer(layer)
        .add_service(Orders(pool.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let channel = Channel::from_shared(format!("http://{addr}")).expect("an address");
    let mut client = tonic::client::Grpc::new(channel.connect_lazy());
    client.ready().await.expect("the server listens");
    let path = "/shop.v1.Orders/List".parse().expect("a path");
    match client.unary(Request::new(String::new()), path, Text).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

#[tokio::test]
async fn over_grpc_internal_becomes_unavailable() {
    let bench = Bench::quick();
    let (_db, pool) = pool(&bench).await;
    let held = pool.acquire().await.expect("free");
    let layer = bench.monitor.layer();
    assert_eq!(
        code(layer.clone(), &pool).await,
        Code::Internal,
        "not asked for"
    );
    let layer = layer.on_exhausted_503();
    assert_eq!(code(layer.clone(), &pool).await, Code::Unavailable);
    held.release().await;
    assert_eq!(code(layer, &pool).await, Code::Ok);
}
