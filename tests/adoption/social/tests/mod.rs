//! The application's tests, as its authors would write them.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

mod comment;
mod post;
mod user;

/// Sends one request to the application and answers status and JSON (null without a body).
async fn send(app: &Router, method: &str, path: &str, json: Option<Value>) -> (u16, Value) {
    let body = json.map_or_else(Body::empty, |json| Body::from(json.to_string()));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body)
        .expect("the request is well formed");
    let answer: Response<Body> = app.clone().oneshot(request).await.expect("infallible");
    let status = answer.status().as_u16();
    let bytes = answer
        .into_body()
        .collect()
        .await
        .expect("the body ends")
        .to_bytes();
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (status, json)
}
