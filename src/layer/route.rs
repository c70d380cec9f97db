//! What a request is called: its route and its id, made fit to be shown.
//!
//! Whatever a client can choose freely never becomes a name: neither a raw path, nor a method of its
//! own invention, nor an id with characters that do not belong in a log.

use http::{HeaderMap, HeaderName, Method, Request, header};

use super::layer::RouteOf;
use crate::scope::Name;
use crate::site::text;

/// Where the route is found unless the user says otherwise.
pub(super) const DEFAULT: RouteOf = matched_path;

#[cfg(feature = "axum")]
fn matched_path(extensions: &http::Extensions) -> Option<&str> {
    extensions
        .get::<axum::extract::MatchedPath>()
        .map(axum::extract::MatchedPath::as_str)
}

#[cfg(not(feature = "axum"))]
fn matched_path(_: &http::Extensions) -> Option<&str> {
    None
}

/// A longer gRPC path is nobody's method name.
const LONGEST_GRPC_PATH: usize = 200;

/// The name of a scope: `POST /orders/{id}`.
pub(super) fn name<B>(request: &Request<B>, route_of: RouteOf) -> Name {
    let route = match route_of(request.extensions()) {
        // tonic's own router matches a whole service; the call is in the path.
        Some(route) => grpc_path(request)
            .filter(|path| is_service_of(route, path))
            .or(Some(route)),
        None => grpc_path(request),
    };
    joined(request.method(), route.unwrap_or(UNMATCHED))
}

const UNMATCHED: &str = "(unmatched)";

/// The name of a request whose route is not known.
pub(super) fn unmatched(method: &Method) -> Name {
    joined(method, UNMATCHED)
}

fn joined(method: &Method, route: &str) -> Name {
    Name::of(&[shown(method), " ", route])
}

fn shown(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "OTHER",
    }
}

/// Whether the request is a gRPC call, whatever its encoding.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(rest) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
    else {
        return false;
    };
    matches!(rest.first(), None | Some(b'+' | b';' | b' ')) || rest.starts_with(b"-web")
}

/// The path of a gRPC call, `/package.Service/Method`, which names its route.
fn grpc_path<B>(request: &Request<B>) -> Option<&str> {
    let path = request.uri().path();
    if path.len() > LONGEST_GRPC_PATH || !is_grpc(request.headers()) {
        return None;
    }
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    (service.split('.').all(is_name) && is_name(method)).then_some(path)
}

/// Whether `route` is `/package.Service/{*…}` for this path: then the method is all it hides.
fn is_service_of(route: &str, path: &str) -> bool {
    route
        .split_once("/{*")
        .filter(|(service, _)| !service.is_empty())
        .and_then(|(service, _)| path.strip_prefix(service))
        .is_some_and(|method| method.starts_with('/') && !method[1..].contains('/'))
}

/// The id the request came with, as it may be shown.
pub(super) fn request_id(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers
        .get(name)
        .map(http::HeaderValue::as_bytes)
        .filter(|id| !id.is_empty())
        .map(text::request_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, content_type: Option<&str>) -> Request<()> {
        let mut builder = Request::builder().method(method).uri(path);
        if let Some(value) = content_type {
            builder = builder.header(header::CONTENT_TYPE, value);
        }
        builder.body(()).expect("a valid request")
    }

    fn name(request: &Request<()>, route_of: RouteOf) -> String {
        super::name(request, route_of).as_str().to_string()
    }

    #[test]
    fn the_matched_route_is_the_name() {
        let request = request("POST", "/orders/7", None);
        assert_eq!(
            name(&request, |_| Some("/orders/{id}")),
            "POST /orders/{id}"
        );
    }

    #[test]
    fn the_raw_path_never_is() {
        for (path, content_type) in [
            ("/users/alice", None),
            ("/users/alice", Some("application/json")),
            ("/users/alice", Some("application/grpcish")),
            ("/users/alice@example.org", Some("application/grpc")),
            ("/users/alice/keys", Some("application/grpc")),
            ("/a..b/c", Some("application/grpc")),
            ("/", Some("application/grpc")),
        ] {
            let request = request("GET", path, content_type);
            assert_eq!(name(&request, |_| None), "GET (unmatched)", "{path}");
        }
    }

    #[test]
    fn a_grpc_call_is_named_by_its_path() {
        for kind in ["", "+proto", "; charset=utf-8", "-web", "-web+proto"] {
            let request = request(
                "POST",
                "/shop.v1.Orders/Ship",
                Some(&format!("application/grpc{kind}")),
            );
            assert_eq!(name(&request, |_| None), "POST /shop.v1.Orders/Ship");
        }
    }

    #[test]
    fn behind_tonics_router_the_call_is_named_and_behind_any_other_the_route() {
        let call = request("POST", "/shop.v1.Orders/Ship", Some("application/grpc"));
        assert_eq!(
            name(&call, |_| Some("/shop.v1.Orders/{*rest}")),
            "POST /shop.v1.Orders/Ship"
        );
        let disguised = request("GET", "/users/alice", Some("application/grpc"));
        assert_eq!(
            name(&disguised, |_| Some("/users/{name}")),
            "GET /users/{name}"
        );
        assert_eq!(name(&disguised, |_| Some("/{*all}")), "GET /{*all}");
    }

    #[test]
    fn a_method_of_the_clients_invention_is_not_shown() {
        let request = request("BREW", "/", None);
        assert_eq!(name(&request, |_| Some("/")), "OTHER /");
    }

    #[test]
    fn a_plain_request_id_is_kept_and_any_other_hashed() {
        let id_of = |id: &[u8]| {
            let mut headers = HeaderMap::new();
            let value = http::HeaderValue::from_bytes(id).expect("a header value");
            headers.insert("x-request-id", value);
            request_id(&headers, &HeaderName::from_static("x-request-id"))
        };
        assert_eq!(id_of(b"3f9c-A.b_1").as_deref(), Some("3f9c-A.b_1"));
        assert_eq!(id_of(b""), None);
        for odd in [
            &b"a b"[..],
            b"alice@example.org",
            "ü".as_bytes(),
            &[b'a'; 65],
        ] {
            let shown = id_of(odd).expect("an id");
            let digits = shown.strip_prefix('#').expect("the mark of a hash");
            assert!(digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
}
