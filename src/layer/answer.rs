//! What a response says: whether a body follows, whether it is success, what an exhausted pool makes
//! of it.

use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::account::Account;
use super::route;
use crate::scope::Outcome;

const GRPC_STATUS: &str = "grpc-status";

/// What of the request decides over the meaning of its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    is_head: bool,
    is_connect: bool,
    is_grpc: bool,
}

impl Asked {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self {
            is_head: request.method() == Method::HEAD,
            is_connect: request.method() == Method::CONNECT,
            is_grpc: route::is_grpc(request.headers()),
        }
    }
}

/// What the body must know of the head it follows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    /// What is left of the promised length. A server stops asking once it has that much.
    pub(super) promised: Option<u64>,
    pub(super) is_grpc: bool,
}

/// Reads the head of the answer, and changes it if the user asked for that.
pub(super) fn read<R>(head: &mut Response<R>, asked: Asked, account: &Account) -> Head {
    if account.settings().on_exhausted_503 && account.scope().acquire_timed_out() {
        blame_the_pool(head, asked);
    }
    let promised = head
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if let Some(success) = told(head, asked) {
        account.scope().note_answer(success);
    }
    // Nobody polls these bodies, so nobody would tell us of their end.
    if has_no_body(head.status(), asked) || promised == Some(0) {
        account.end(Outcome::Completed);
    }
    Head {
        promised,
        is_grpc: asked.is_grpc,
    }
}

fn has_no_body(status: StatusCode, asked: Asked) -> bool {
    asked.is_head
        || status.is_informational() // 101: what follows is no longer this request
        || (asked.is_connect && status.is_success()) // the same, over HTTP/2
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

fn told<R>(head: &Response<R>, asked: Asked) -> Option<bool> {
    if asked.is_grpc && head.status() == StatusCode::OK {
        // Not in the head: it comes with the trailers.
        return grpc_success(head.headers());
    }
    Some(!head.status().is_client_error() && !head.status().is_server_error())
}

/// Whether these headers or trailers end a gRPC call with success; `None` if they do not end it.
pub(super) fn grpc_success(headers: &HeaderMap) -> Option<bool> {
    headers
        .get(GRPC_STATUS)
        .map(|status| status.as_bytes() == b"0")
}

fn blame_the_pool<R>(head: &mut Response<R>, asked: Asked) {
    if asked.is_grpc
        && let Some(status) = head.headers_mut().get_mut(GRPC_STATUS)
    {
        // UNKNOWN or INTERNAL becomes UNAVAILABLE.
        if matches!(status.as_bytes(), b"2" | b"13") {
            *status = HeaderValue::from_static("14");
        }
    } else if head.status() == StatusCode::INTERNAL_SERVER_ERROR {
        *head.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        head.headers_mut()
            .entry(RETRY_AFTER)
            .or_insert(HeaderValue::from_static("1"));
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

    use super::*;
    use crate::config::Config;
    use crate::layer::ScopeBody;
    use crate::monitor::Monitor;
    use crate::scope::Scope;

    /// One request to a service whose pool fails it and which then answers `head`.
    async fn answer(
        is_on: bool,
        is_timed_out: bool,
        content_type: &'static str,
        head: http::response::Builder,
    ) -> (Response<ScopeBody<&'static str>>, Option<bool>) {
        let layer = Monitor::new(Config::default()).layer();
        let layer = if is_on {
            layer.on_exhausted_503()
        } else {
            layer
        };
        let mut response = Some(head.body("the body").expect("a valid head"));
        let mut scope = None;
        let service = service_fn(|_: Request<()>| {
            let current = Scope::current().expect("in a request");
            if is_timed_out {
                current.note_acquire_timeout();
            }
            scope = Some(current);
            std::future::ready(Ok::<_, Infallible>(response.take().expect("called once")))
        });
        let request = Request::builder()
            .header(http::header::CONTENT_TYPE, content_type)
            .body(())
            .expect("a valid request");
        let mut service = ServiceBuilder::new().layer(layer).service(service);
        let service = service.ready().await.expect("always ready");
        let response = service.call(request).await.expect("never fails");
        let told = scope.and_then(|scope| scope.told_success());
        (response, told)
    }

    fn status(code: u16) -> http::response::Builder {
        Response::builder().status(code)
    }

    fn grpc(code: &str) -> http::response::Builder {
        Response::builder().header(GRPC_STATUS, code)
    }

    fn grpc_status(response: &Response<ScopeBody<&str>>) -> String {
        String::from_utf8_lossy(response.headers()[GRPC_STATUS].as_bytes()).into_owned()
    }

    #[test]
    fn what_has_no_body_is_known_from_method_and_status() {
        let asked = |method| Asked::of(&Request::builder().method(method).body(()).unwrap());
        for (method, status, expected) in [
            (Method::GET, 101, true),
            (Method::GET, 204, true),
            (Method::GET, 304, true),
            (Method::HEAD, 200, true),
            (Method::CONNECT, 200, true),
            (Method::CONNECT, 502, false),
            (Method::GET, 200, false),
            (Method::GET, 404, false),
        ] {
            let code = StatusCode::from_u16(status).expect("a valid status");
            let seen = has_no_body(code, asked(method.clone()));
            assert_eq!(seen, expected, "{method} {status}");
        }
    }

    #[tokio::test]
    async fn a_500_becomes_503_only_if_asked_for_and_only_if_the_pool_is_to_blame() {
        for (is_on, is_timed_out, code, expected) in [
            (true, true, 500, 503),
            (false, true, 500, 500),
            (true, false, 500, 500),
            (true, true, 502, 502),
            (true, true, 404, 404),
            (true, true, 200, 200),
        ] {
            let (response, told) = answer(is_on, is_timed_out, "text/plain", status(code)).await;
            let case = (is_on, is_timed_out, code);
            assert_eq!(response.status(), expected, "{case:?}");
            let waits = response.headers().get(RETRY_AFTER).is_some();
            assert_eq!(waits, expected == 503, "{case:?}");
            assert_eq!(told, Some(code < 400), "{case:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_with_its_own_retry_after_keeps_it() {
        let own = status(500).header(RETRY_AFTER, "30");
        let (response, _) = answer(true, true, "text/plain", own).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "30");
    }

    #[tokio::test]
    async fn grpc_unknown_and_internal_become_unavailable() {
        for (is_on, is_timed_out, code, expected) in [
            (true, true, "2", "14"),
            (true, true, "13", "14"),
            (true, true, "0", "0"),
            (true, true, "5", "5"),
            (false, true, "13", "13"),
            (true, false, "13", "13"),
        ] {
            let (response, told) =
                answer(is_on, is_timed_out, "application/grpc", grpc(code)).await;
            let case = (is_on, is_timed_out, code);
            assert_eq!(response.status(), 200, "{case:?}");
            assert_eq!(grpc_status(&response), expected, "{case:?}");
            assert_eq!(told, Some(code == "0"), "{case:?}");
        }
    }

    #[tokio::test]
    async fn what_a_grpc_caller_is_told_comes_with_the_trailers() {
        let (_, told) = answer(false, false, "application/grpc", status(200)).await;
        assert_eq!(told, None);
    }
}
