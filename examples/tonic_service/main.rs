//! A tonic service with leaktrace: unary and server-streaming calls, named by their gRPC path.
//!
//! ```sh
//! cargo run --example tonic_service
//! ```
//!
//! It needs no server and no proto compiler: the database is SQLite in memory, and the messages are
//! lines of text, through a codec of forty lines in `text.rs`. It serves until Ctrl-C, or for `--seconds N`, calls
//! itself, and prints what leaktrace counted.

mod text;

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, TryStreamExt};
use leaktrace::{Monitor, SqlitePool, SqlitePoolOptions};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tower::{Service, service_fn};

use crate::text::Text;

#[derive(Clone)]
struct Orders(SqlitePool);

type Lines = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

impl Orders {
    async fn state(self, request: Request<String>) -> Result<Response<String>, Status> {
        let sql = "SELECT state FROM orders WHERE id = ?";
        let state = sqlx::query_scalar(sql).bind(request.into_inner());
        let state: Option<String> = state.fetch_optional(&self.0).await.map_err(internal)?;
        state
            .map(Response::new)
            .ok_or_else(|| Status::not_found("no such order"))
    }

    /// The stream holds its connection until its last message, or until the caller cancels.
    async fn list(self, _: Request<String>) -> Result<Response<Lines>, Status> {
        Ok(Response::new(Box::pin(async_stream::stream! {
            let mut rows = sqlx::query_scalar("SELECT state FROM orders").fetch(&self.0);
            while let Some(state) = rows.try_next().await.map_err(internal).transpose() {
                yield state;
            }
        })))
    }
}

/// `INTERNAL` as ever: the layer makes `UNAVAILABLE` of it when the pool was exhausted.
fn internal(error: sqlx::Error) -> Status {
    Status::internal(error.to_string())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = seconds_to_serve()?;
    tracing_subscriber::fmt()
        .with_env_filter("leaktrace=info,warn")
        .init();
    let monitor = Monitor::from_env()?;
    let db = SqlitePoolOptions::new()
        .name("orders")
        .monitor(&monitor)
        .max_connections(1)
        .connect("sqlite::memory:")
        .await?;
    for sql in [
        "CREATE TABLE orders (id TEXT PRIMARY KEY, state TEXT NOT NULL)",
        "INSERT INTO orders VALUES ('7', 'paid'), ('8', 'shipped')",
    ] {
        sqlx::query(sql).execute(&db).await?;
    }

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("serving on {url}");
    let end = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = sleep(seconds) => {}
        }
    };
    let server = Server::builder()
        .layer(monitor.layer().on_exhausted_503())
        .add_service(Orders(db.clone()))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), end);
    let (served, called) = tokio::join!(server, call(url));
    served?;
    called?;

    println!("{:?}\n{}", monitor.requests(), monitor.report());
    if let Err(leaks) = db.close_within(Duration::from_secs(2)).await {
        println!("{leaks}");
    }
    Ok(())
}

/// One of each call.
async fn call(url: String) -> Result<(), Box<dyn Error>> {
    let mut client = tonic::client::Grpc::new(Channel::from_shared(url)?.connect().await?);
    client.ready().await?;
    let path = "/shop.v1.Orders/State".parse()?;
    let state: Response<String> = client
        .unary(Request::new("7".to_owned()), path, Text)
        .await?;
    println!("State: {}", state.into_inner());
    client.ready().await?;
    let path = "/shop.v1.Orders/List".parse()?;
    let lines = client
        .server_streaming(Request::new(String::new()), path, Text)
        .await?;
    let lines: Vec<String> = lines.into_inner().try_collect().await?;
    println!("List: {}", lines.join(", "));
    Ok(())
}

// --- what a proto compiler would write ----------------------------------------------------------

impl NamedService for Orders {
    const NAME: &'static str = "shop.v1.Orders";
}

impl Service<http::Request<Body>> for Orders {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let orders = self.clone();
        let mut grpc = Grpc::new(Text);
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/shop.v1.Orders/State" => {
                    let state = service_fn(move |request| orders.clone().state(request));
                    grpc.unary(state, request).await
                }
                "/shop.v1.Orders/List" => {
                    let list = service_fn(move |request| orders.clone().list(request));
                    grpc.server_streaming(list, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

fn seconds_to_serve() -> Result<Duration, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &*words.iter().map(String::as_str).collect::<Vec<_>>() {
        [] => Ok(Duration::MAX),
        ["--seconds", seconds] => Ok(Duration::from_secs(seconds.parse()?)),
        _ => Err("usage: tonic_service [--seconds N]".into()),
    }
}
