//! The request scope for tower services: axum, tonic and any other.
//!
//! [`Monitor::layer`] opens a [`Scope`](crate::Scope) for each request and ends it when the response
//! body ends or is dropped. It adds no error type, asks nothing of the body, and changes no byte of
//! the answer, unless [`ScopeLayer::on_exhausted_503`] is asked for.
//!
//! - `layer`: the options; `service`: opens the scope; `future`: from the call to the response;
//!   `body`: from there to the last byte.
//! - `account`: what future and body hold of a request, and how it ends. `route`: what it is called.
//!   `answer`: what its response says.

mod account;
mod answer;
mod body;
mod future;
#[allow(clippy::module_inception)]
mod layer;
mod route;
mod service;

pub use body::ScopeBody;
pub use future::ScopeFuture;
pub use layer::ScopeLayer;
pub use service::ScopeService;

use crate::monitor::Monitor;

impl Monitor {
    /// Returns the tower layer that opens a [`Scope`](crate::Scope) for each request.
    ///
    /// Add it last, so that it is outermost: what other layers do then belongs to the request too.
    /// In axum use `Router::layer`, which runs after routing and so knows the matched path.
    /// Adding it twice is harmless: the inner one finds itself in the scope of its request.
    ///
    /// # Examples
    /// ```
    /// use leaktrace::{Config, Monitor};
    ///
    /// let monitor = Monitor::new(Config::default());
    /// let app: axum::Router = axum::Router::new()
    ///     .route("/orders/{id}", axum::routing::get(|| async { "an order" }))
    ///     .layer(monitor.layer());
    /// # drop(app);
    /// ```
    pub fn layer(&self) -> ScopeLayer {
        ScopeLayer::new(self.clone())
    }
}
