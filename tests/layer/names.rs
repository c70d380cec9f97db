//! What a request is called in its scope.

use axum::Router;
use axum::routing::{any, get};
use leaktrace::Scope;

use crate::support::{Log, exchange, monitor, scope_name, serve};

async fn named() -> String {
    let id = Scope::current().and_then(|scope| scope.request_id().map(ToOwned::to_owned));
    format!("{} {}", scope_name(), id.as_deref().unwrap_or("no id"))
}

fn app() -> Router {
    let inner = Router::new().route("/{order}/ship", any(named));
    Router::new()
        .route("/", any(named))
        .route("/orders/{id}", any(named))
        .route("/files/{*path}", any(named))
        .nest("/api/{tenant}", inner)
        .fallback(named)
}

async fn name_of(app: Router, line: &str, headers: &str) -> String {
    let answer = exchange(serve(app).await, line, headers).await;
    let text = String::from_utf8(answer).expect("text");
    text.rsplit("\r\n").next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_is_named_by_method_and_matched_path() {
    let app = app().layer(monitor().layer());
    for (line, expected) in [
        ("GET /", "GET / no id"),
        ("POST /orders/7", "POST /orders/{id} no id"),
        ("GET /orders/7?secret=1", "GET /orders/{id} no id"),
        ("GET /files/a/b", "GET /files/{*path} no id"),
        (
            "PUT /api/alice/7/ship",
            "PUT /api/{tenant}/{order}/ship no id",
        ),
        ("BREW /orders/7", "OTHER /orders/{id} no id"),
        ("GET /users/alice", "GET (unmatched) no id"),
    ] {
        assert_eq!(name_of(app.clone(), line, "").await, expected);
    }
}

#[tokio::test]
async fn a_grpc_content_type_does_not_make_a_route_of_a_raw_path() {
    let app = app().layer(monitor().layer());
    let headers = "content-type: application/grpc\r\n";
    assert_eq!(
        name_of(app, "POST /orders/alice", headers).await,
        "POST /orders/{id} no id"
    );
}

#[tokio::test]
async fn a_layer_inside_a_nested_router_knows_the_whole_route() {
    let inner = Router::new()
        .route("/{order}/ship", any(named))
        .layer(monitor().layer());
    let app = Router::new().nest("/api/{tenant}", inner);
    assert_eq!(
        name_of(app, "PUT /api/alice/7/ship", "").await,
        "PUT /api/{tenant}/{order}/ship no id"
    );
}

#[tokio::test]
async fn two_layers_around_one_request_are_one_scope_under_the_better_name() {
    let monitor = monitor();
    // Inside a nested service the outer layer cannot see the route.
    let inner = Router::new()
        .route("/{order}", any(named))
        .layer(monitor.layer());
    let app = Router::new()
        .nest_service("/orders", inner)
        .layer(monitor.layer());
    let addr = serve(app).await;
    for (number, line) in (1..).zip(["GET /orders/7", "GET /orders/8"]) {
        let answer = exchange(addr, line, "").await;
        let text = String::from_utf8(answer).expect("text");
        assert!(text.ends_with("GET /orders/{order} no id"), "{text}");
        crate::support::ended(&monitor, crate::support::Ends::completed(number)).await;
    }
}

#[tokio::test]
async fn a_request_id_is_kept_if_it_is_harmless_and_hashed_if_not() {
    let app = app().layer(monitor().layer());
    let id_of = |headers: &'static str| name_of(app.clone(), "GET /", headers);
    assert_eq!(
        id_of("x-request-id: 3f9c-A.b_1\r\n").await,
        "GET / 3f9c-A.b_1"
    );
    for odd in [
        "x-request-id: alice@example.org\r\n",
        "x-request-id: a b\r\n",
    ] {
        let name = id_of(odd).await;
        assert!(!name.contains("alice") && !name.contains("a b"), "{name}");
        assert!(!name.contains("no id"), "{name}");
    }
    let header = axum::http::HeaderName::from_static("x-trace");
    let own = Router::new()
        .route("/", any(named))
        .layer(monitor().layer().request_id_header(header));
    let headers = "x-request-id: 1\r\nx-trace: 2\r\n";
    assert_eq!(name_of(own, "GET /", headers).await, "GET / 2");
}

#[tokio::test]
async fn the_route_can_come_from_elsewhere() {
    #[derive(Clone)]
    struct Route(&'static str);
    let layer = monitor()
        .layer()
        .route_with(|extensions| extensions.get::<Route>().map(|route| route.0));
    let app = Router::new()
        .route("/a/{b}", any(named))
        .layer(layer)
        .layer(axum::Extension(Route("/from/elsewhere")));
    assert_eq!(
        name_of(app, "GET /a/b", "").await,
        "GET /from/elsewhere no id"
    );
}

#[tokio::test]
async fn the_scope_is_there_in_call_and_poll_and_body_and_not_in_other_tasks() {
    use axum::body::{Body, Bytes};
    use futures::stream;

    let (monitor, log) = (monitor(), Log::default());
    let (calls, handler) = (log.clone(), log.clone());
    let app = Router::new()
        .route(
            "/where",
            get(move || async move {
                handler.add(format!("poll: {}", scope_name()));
                let spawned = tokio::spawn(async { scope_name() })
                    .await
                    .expect("no panic");
                handler.add(format!("spawned: {spawned}"));
                Body::from_stream(stream::once(async move {
                    handler.add(format!("body: {}", scope_name()));
                    Ok::<_, std::convert::Infallible>(Bytes::from_static(b"x"))
                }))
            }),
        )
        .layer(tower::util::MapRequestLayer::new(
            move |request: axum::extract::Request| {
                calls.add(format!("call: {}", scope_name()));
                request
            },
        ))
        .layer(monitor.layer());
    exchange(serve(app).await, "GET /where", "").await;
    assert_eq!(
        log.lines(),
        [
            "call: GET /where",
            "poll: GET /where",
            "spawned: -",
            "body: GET /where"
        ]
    );
}
