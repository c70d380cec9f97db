//! tonic: unary, streaming, cancel and deadline, through the layer. The codec is that of the
//! example: it carries text, so that no proto file and no compiler is needed.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::uri::PathAndQuery;
use axum::http::{Request as HttpRequest, Response as HttpResponse};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt, stream};
use leaktrace::Monitor;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::{Service, service_fn};

use crate::support::{Ends, Log, ended, monitor, scope_name};
use crate::text::Text;

type Answers = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

#[derive(Clone)]
struct Orders(Log);

impl Orders {
    async fn unary(self, request: Request<String>) -> Result<Response<String>, Status> {
        self.0.add(format!("in {}", scope_name()));
        match request.get_ref().as_str() {
            "never" => pending().await,
            "fails" => Err(Status::internal("on purpose")),
            text => Ok(Response::new(format!("{text} in {}", scope_name()))),
        }
    }

    async fn list(self, request: Request<String>) -> Result<Response<Answers>, Status> {
        self.0.add(format!("in {}", scope_name()));
        let few =
            stream::iter(["one", "two"]).map(|text| Ok(format!("{text} in {}", scope_name())));
        Ok(Response::new(match request.get_ref().as_str() {
            "endless" => few.chain(stream::pending()).boxed(),
            "fails" => few
                .chain(stream::iter([Err(Status::internal("late"))]))
                .boxed(),
            _ => few.boxed(),
        }))
    }

    async fn collect(
        self,
        request: Request<Streaming<String>>,
    ) -> Result<Response<String>, Status> {
        let mut all = Vec::new();
        let mut parts = request.into_inner();
        while let Some(part) = parts.next().await {
            self.0.add(format!("part in {}", scope_name()));
            all.push(part?);
        }
        Ok(Response::new(all.join("+")))
    }
}

impl NamedService for Orders {
    const NAME: &'static str = "shop.v1.Orders";
}

impl Service<HttpRequest<Body>> for Orders {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let orders = self.clone();
        let mut grpc = tonic::server::Grpc::new(Text);
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/shop.v1.Orders/Ship" => {
                    grpc.unary(service_fn(move |r| orders.clone().unary(r)), request)
                        .await
                }
                "/shop.v1.Orders/List" => {
                    let list = service_fn(move |r| orders.clone().list(r));
                    grpc.server_streaming(list, request).await
                }
                "/shop.v1.Orders/Collect" => {
                    let collect = service_fn(move |r| orders.clone().collect(r));
                    grpc.client_streaming(collect, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

type Client = tonic::client::Grpc<Channel>;

async fn client(monitor: &Monitor, log: &Log) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let server = Server::builder()
        .layer(monitor.layer())
        .add_service(Orders(log.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let channel = Channel::from_shared(format!("http://{addr}")).expect("an address");
    let mut client = Client::new(channel.connect_lazy());
    client.ready().await.expect("the server listens");
    client
}

fn path(method: &str) -> PathAndQuery {
    format!("/shop.v1.Orders/{method}").parse().expect("a path")
}

async fn ship(client: &mut Client, text: &str) -> Result<String, Status> {
    let request = Request::new(text.to_owned());
    let answer = client.unary(request, path("Ship"), Text).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn a_unary_call_is_named_by_its_path_and_completes() {
    let (monitor, log) = (monitor(), Log::default());
    let mut client = client(&monitor, &log).await;
    let answer = ship(&mut client, "7").await.expect("an answer");
    assert_eq!(answer, "7 in POST /shop.v1.Orders/Ship");
    ended(&monitor, Ends::completed(1)).await;
}

#[tokio::test]
async fn a_refused_call_is_an_answer_too() {
    let (monitor, log) = (monitor(), Log::default());
    let mut client = client(&monitor, &log).await;
    let refused = ship(&mut client, "fails").await.expect_err("on purpose");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Internal, "on purpose")
    );
    client.ready().await.expect("connected");
    let unknown = client
        .unary::<String, String, _>(Request::new("x".into()), path("Nothing"), Text)
        .await
        .expect_err("no such method");
    assert_eq!(unknown.code(), Code::Unimplemented);
    ended(&monitor, Ends::completed(2)).await;
}

#[tokio::test]
async fn a_server_stream_is_one_request_to_its_last_trailer() {
    let (monitor, log) = (monitor(), Log::default());
    let mut client = client(&monitor, &log).await;
    for (number, (text, code)) in (1..).zip([("all", Code::Ok), ("fails", Code::Internal)]) {
        client.ready().await.expect("connected");
        let answer = client
            .server_streaming(Request::new(text.to_owned()), path("List"), Text)
            .await
            .expect("a stream");
        let mut answers: Streaming<String> = answer.into_inner();
        for expected in ["one", "two"] {
            let seen = answers.next().await.expect("one more").expect("no error");
            assert_eq!(seen, format!("{expected} in POST /shop.v1.Orders/List"));
        }
        let end = answers
            .next()
            .await
            .map_or(Code::Ok, |end| end.expect_err("an end").code());
        assert_eq!(end, code);
        ended(&monitor, Ends::completed(number)).await;
    }
}

#[tokio::test]
async fn a_client_stream_is_read_inside_the_scope() {
    let (monitor, log) = (monitor(), Log::default());
    let mut client = client(&monitor, &log).await;
    let parts = stream::iter(["a", "b", "c"].map(String::from));
    let answer: Response<String> = client
        .client_streaming(Request::new(parts), path("Collect"), Text)
        .await
        .expect("an answer");
    assert_eq!(answer.into_inner(), "a+b+c");
    log.has("part in POST /shop.v1.Orders/Collect").await;
    ended(&monitor, Ends::completed(1)).await;
}

#[tokio::test]
async fn a_cancelled_upload_cancels_the_request() {
    let (monitor, log) = (monitor(), Log::default());
    let mut client = client(&monitor, &log).await;
    let parts = stream::iter(["a".to_owned()]).chain(stream::pending());
    let call = tokio::spawn(async move {
        let request = Request::new(parts);
        let answer: Result<Response<String>, _> = client
            .client_streaming(request, path("Collect"), Text)
            .await;
        answer.is_ok()
    });
    log.has("part in POST /shop.v1.Orders/Collect").await;
    call.abort();
    ended(&monitor, Ends::cancelled(1)).await;
}

#[tokio::test]
async fn a_cancelled_call_cancels_the_request() {
    let (monitor, log) = (monitor(), Log::default());
    let mut client = client(&monitor, &log).await;
    let call = tokio::spawn(async move { ship(&mut client, "never").await.is_ok() });
    log.has("in POST /shop.v1.Orders/Ship").await;
    assert_eq!(Ends::of(&monitor), Ends::default());
    call.abort();
    ended(&monitor, Ends::cancelled(1)).await;
}

#[tokio::test]
async fn a_deadline_cancels_the_request() {
    let (monitor, log) = (monitor(), Log::default());
    let mut client = client(&monitor, &log).await;
    let mut request = Request::new("never".to_owned());
    request.set_timeout(Duration::from_millis(100));
    let late: Result<Response<String>, _> = client.unary(request, path("Ship"), Text).await;
    late.expect_err("past its deadline");
    ended(&monitor, Ends::cancelled(1)).await;
}

#[tokio::test]
async fn a_dropped_stream_cancels_the_request() {
    let (monitor, log) = (monitor(), Log::default());
    let mut client = client(&monitor, &log).await;
    let request = Request::new("endless".to_owned());
    let answer = client.server_streaming(request, path("List"), Text).await;
    let mut answers: Streaming<String> = answer.expect("a stream").into_inner();
    answers.next().await.expect("one").expect("no error");
    assert_eq!(Ends::of(&monitor), Ends::default());
    drop(answers);
    ended(&monitor, Ends::cancelled(1)).await;
}
