//! The layer and its options.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderName};
use tower_layer::Layer;

use super::route;
use super::service::ScopeService;
use crate::monitor::Monitor;

/// Opens a [`Scope`](crate::Scope) for each request; made by [`Monitor::layer`].
///
/// The scope is named by method and matched route: axum's matched path (feature `axum`), the path
/// of a gRPC call, or what [`ScopeLayer::route_with`] finds. The raw path is never used: without a
/// route the name is `GET (unmatched)`.
///
/// # Cost
/// At [`Detail::Off`](crate::Detail::Off) one atomic load for a request. Otherwise one allocation,
/// another for a request id or a long route, and one clock read for each poll of the response and of
/// its body.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use leaktrace::{Config, Monitor};
///
/// let layer = Monitor::new(Config::default())
///     .layer()
///     .grace(Duration::from_millis(250))
///     .request_id_header(http::HeaderName::from_static("x-amzn-trace-id"))
///     .on_exhausted_503();
/// # let _ = layer;
/// ```
#[derive(Clone)]
#[must_use]
pub struct ScopeLayer {
    settings: Arc<Settings>,
}

/// One allocation shared by layer, services and requests: axum clones its services all the time.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) monitor: Monitor,
    pub(super) grace: Option<Duration>,
    pub(super) request_id_header: HeaderName,
    pub(super) route_of: RouteOf,
    pub(super) on_exhausted_503: bool,
}

/// Finds the matched route in what a router left in the request.
pub(super) type RouteOf = for<'a> fn(&'a Extensions) -> Option<&'a str>;

impl ScopeLayer {
    pub(super) fn new(monitor: Monitor) -> Self {
        Self {
            settings: Arc::new(Settings {
                monitor,
                grace: None,
                request_id_header: HeaderName::from_static("x-request-id"),
                route_of: route::DEFAULT,
                on_exhausted_503: false,
            }),
        }
    }

    /// Sets how long after the end of its request a checkout may stay out unreported.
    ///
    /// Unset, the monitor's own setting counts, one second by default. A return needs a moment after
    /// the last byte: do not set this to zero.
    ///
    /// # Examples
    /// ```
    /// # let monitor = leaktrace::Monitor::new(leaktrace::Config::default());
    /// let layer = monitor.layer().grace(std::time::Duration::from_secs(5));
    /// # let _ = layer;
    /// ```
    pub fn grace(self, grace: Duration) -> Self {
        self.with(|settings| settings.grace = Some(grace))
    }

    /// Sets the header that carries the request id; `x-request-id` by default.
    ///
    /// An id of at most 64 characters of `[A-Za-z0-9._-]` is kept as it is; anything else is shown
    /// by its hash.
    ///
    /// # Examples
    /// ```
    /// # let monitor = leaktrace::Monitor::new(leaktrace::Config::default());
    /// let header = http::HeaderName::from_static("x-correlation-id");
    /// let layer = monitor.layer().request_id_header(header);
    /// # let _ = layer;
    /// ```
    pub fn request_id_header(self, name: HeaderName) -> Self {
        self.with(|settings| settings.request_id_header = name)
    }

    /// Sets how the matched route is found, for routers other than axum's.
    ///
    /// Return the *pattern*, such as `/orders/{id}`, never the path: it is shown in reports, which
    /// group by it.
    ///
    /// # Examples
    /// ```
    /// # let monitor = leaktrace::Monitor::new(leaktrace::Config::default());
    /// #[derive(Clone)]
    /// struct Route(&'static str);
    ///
    /// let layer = monitor
    ///     .layer()
    ///     .route_with(|extensions| extensions.get::<Route>().map(|route| route.0));
    /// # let _ = layer;
    /// ```
    pub fn route_with(self, route_of: for<'a> fn(&'a Extensions) -> Option<&'a str>) -> Self {
        self.with(|settings| settings.route_of = route_of)
    }

    /// Answers 503 instead of 500 when the reason is an exhausted pool.
    ///
    /// Off by default. It changes an answer only if an acquire of this very request timed out *and*
    /// the service answered 500: then the status becomes 503, with `Retry-After: 1` unless the
    /// answer has its own. For gRPC, `UNKNOWN` and `INTERNAL` in the head of the answer become
    /// `UNAVAILABLE`; a status in trailers has been sent too late to change. The body stays.
    ///
    /// # Examples
    /// ```
    /// # let monitor = leaktrace::Monitor::new(leaktrace::Config::default());
    /// let layer = monitor.layer().on_exhausted_503();
    /// # let _ = layer;
    /// ```
    pub fn on_exhausted_503(self) -> Self {
        self.with(|settings| settings.on_exhausted_503 = true)
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<S> Layer<S> for ScopeLayer {
    type Service = ScopeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ScopeService::new(inner, Arc::clone(&self.settings))
    }
}

impl fmt::Debug for ScopeLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.describe(&mut f.debug_struct("ScopeLayer"))
    }
}

impl Settings {
    pub(super) fn describe(&self, out: &mut fmt::DebugStruct<'_, '_>) -> fmt::Result {
        // Every field is named here, so that a new one is not forgotten.
        let Self {
            monitor: _,
            grace,
            request_id_header,
            route_of: _,
            on_exhausted_503,
        } = self;
        out.field("grace", grace)
            .field("request_id_header", request_id_header)
            .field("on_exhausted_503", on_exhausted_503)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_option_set_on_a_clone_leaves_the_original_alone() {
        let plain = Monitor::new(Config::default()).layer();
        let changed = plain
            .clone()
            .grace(Duration::from_secs(9))
            .on_exhausted_503();
        assert_eq!(plain.settings.grace, None);
        assert!(!plain.settings.on_exhausted_503);
        assert_eq!(changed.settings.grace, Some(Duration::from_secs(9)));
    }

    #[test]
    fn the_layer_crosses_threads() {
        fn shared<T: Send + Sync + Clone + fmt::Debug + 'static>() {}
        shared::<ScopeLayer>();
        shared::<ScopeService<()>>();
    }
}
