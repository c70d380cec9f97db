//! Opens the scope of a request and calls the service inside it.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::account::Account;
use super::answer::Asked;
use super::body::ScopeBody;
use super::future::ScopeFuture;
use super::layer::Settings;

/// A service inside a [`ScopeLayer`](super::ScopeLayer).
#[derive(Clone)]
pub struct ScopeService<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> ScopeService<S> {
    pub(super) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings }
    }
}

impl<S, B, R> Service<Request<B>> for ScopeService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<ScopeBody<R>>;
    type Error = S::Error;
    type Future = ScopeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(account) = Account::open(&self.settings, &request) else {
            return ScopeFuture::passing(self.inner.call(request));
        };
        let asked = Asked::of(&request);
        let future = {
            let _on_unwind = account.on_unwind();
            let _entered = account.scope().enter_unstamped();
            self.inner.call(request)
        };
        ScopeFuture::new(future, account, asked)
    }
}

impl<S: fmt::Debug> fmt::Debug for ScopeService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings
            .describe(f.debug_struct("ScopeService").field("inner", &self.inner))
    }
}
