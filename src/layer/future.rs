//! From the call to the response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

use super::account::Account;
use super::answer::{self, Asked};
use super::body::ScopeBody;
use crate::scope::Outcome;

pin_project! {
    /// The response future of a [`ScopeService`](super::ScopeService).
    ///
    /// Dropped before its response, it ends the request as cancelled, and only then drops what the
    /// handler held.
    #[must_use = "futures do nothing unless polled"]
    pub struct ScopeFuture<F> {
        // An option only so that the drop can happen inside the scope; `None` at no other time.
        #[pin]
        inner: Option<F>,
        // `None` if nothing is recorded, and once the body has it.
        account: Option<(Account, Asked)>,
    }

    impl<F> PinnedDrop for ScopeFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let Some((account, _)) = this.account.as_ref() else {
                return;
            };
            // First the verdict, then the drop: what the handler lets go of must find that its
            // request was cut.
            account.end(Outcome::Cancelled);
            let _entered = account.scope().enter_unstamped();
            this.inner.set(None);
        }
    }
}

impl<F> ScopeFuture<F> {
    pub(super) fn new(inner: F, account: Account, asked: Asked) -> Self {
        Self {
            inner: Some(inner),
            account: Some((account, asked)),
        }
    }

    pub(super) fn passing(inner: F) -> Self {
        Self {
            inner: Some(inner),
            account: None,
        }
    }
}

impl<F, R, E> Future for ScopeFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ScopeBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Pending;
        };
        let Some((account, asked)) = this.account.as_ref() else {
            return inner
                .poll(cx)
                .map_ok(|response| response.map(ScopeBody::passing));
        };
        let polled = {
            let _on_unwind = account.on_unwind();
            let _entered = account.scope().enter();
            inner.poll(cx)
        };
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => {
                account.end(Outcome::Errored);
                Poll::Ready(Err(error))
            }
            Poll::Ready(Ok(mut response)) => {
                let head = answer::read(&mut response, *asked, account);
                let account = this.account.take().map(|(account, _)| account);
                Poll::Ready(Ok(response.map(|body| ScopeBody::new(body, account, head))))
            }
        }
    }
}

impl<F> fmt::Debug for ScopeFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = self.account.as_ref().map(|(account, _)| account.scope());
        f.debug_struct("ScopeFuture")
            .field("scope", &scope)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_crosses_threads_if_the_inner_one_does() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<ScopeFuture<()>>();
        shared::<ScopeBody<()>>();
    }
}
