//! From the response to its last byte.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::account::Account;
use super::answer::{self, Head};
use crate::scope::Outcome;
use crate::sync::atomic::{AtomicBool, Ordering};

pin_project! {
    /// The response body of a [`ScopeService`](super::ScopeService).
    ///
    /// Every frame, size and end is the inner body's. The request ends with it: completed at its
    /// end, errored at its error, cancelled when it is dropped while it owes something.
    ///
    /// `ScopeBody::default()` is an empty body, whatever `R` is, for layers that make one up.
    pub struct ScopeBody<R> {
        // An option for `Default`, and so that the drop can happen inside the scope.
        #[pin]
        inner: Option<R>,
        // `None` if nothing is recorded.
        account: Option<Account>,
        head: Head,
        // Whether every promised byte was handed over: a server that has them all drops a body
        // without asking for its end, and that is no cancellation.
        owes_nothing: AtomicBool,
    }

    impl<R> PinnedDrop for ScopeBody<R> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let Some(account) = this.account.as_ref() else {
                return;
            };
            // First the verdict, then the drop, as in `ScopeFuture`.
            account.end(if this.owes_nothing.load(Ordering::Relaxed) {
                Outcome::Completed
            } else {
                Outcome::Cancelled
            });
            let _entered = account.scope().enter_unstamped();
            this.inner.set(None);
        }
    }
}

impl<R> ScopeBody<R> {
    pub(super) fn new(inner: R, account: Option<Account>, head: Head) -> Self {
        Self::of(Some(inner), account, head)
    }

    pub(super) fn passing(inner: R) -> Self {
        Self::new(inner, None, Head::default())
    }

    fn of(inner: Option<R>, account: Option<Account>, head: Head) -> Self {
        Self {
            inner,
            account,
            head,
            owes_nothing: AtomicBool::new(false),
        }
    }
}

impl<R> Default for ScopeBody<R> {
    fn default() -> Self {
        Self::of(None, None, Head::default())
    }
}

impl<R: Body> Body for ScopeBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Some(account) = this.account.as_ref() else {
            return inner.poll_frame(cx);
        };
        let polled = {
            let _on_unwind = account.on_unwind();
            let _entered = account.scope().enter_until_ended();
            inner.as_mut().poll_frame(cx)
        };
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => account.end(Outcome::Completed),
            Poll::Ready(Some(Err(_))) => account.end(Outcome::Errored),
            Poll::Ready(Some(Ok(frame))) => {
                let mut is_last = inner.is_end_stream();
                if let Some(data) = frame.data_ref() {
                    let length = u64::try_from(data.remaining()).unwrap_or(u64::MAX);
                    this.head.promised = this.head.promised.map(|left| left.saturating_sub(length));
                } else if let Some(trailers) = frame.trailers_ref() {
                    // Nothing follows trailers, and servers do not ask whether something does.
                    is_last = true;
                    if this.head.is_grpc
                        && let Some(success) = answer::grpc_success(trailers)
                    {
                        account.scope().note_answer(success);
                    }
                }
                if is_last {
                    account.end(Outcome::Completed);
                } else if this.head.promised == Some(0) || inner.size_hint().exact() == Some(0) {
                    this.owes_nothing.store(true, Ordering::Relaxed);
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let Some(inner) = self.inner.as_ref() else {
            return true;
        };
        let is_end = inner.is_end_stream();
        if let Some(account) = self.account.as_ref() {
            // Whoever is told that nothing will follow does not poll: it is the end. It is noticed
            // here and not when the response is made, because there `R` need not be a body.
            if is_end {
                account.end(Outcome::Completed);
            } else if inner.size_hint().exact() == Some(0) {
                self.owes_nothing.store(true, Ordering::Relaxed);
            }
        }
        is_end
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<R> fmt::Debug for ScopeBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeBody")
            .field("scope", &self.account.as_ref().map(Account::scope))
            .finish_non_exhaustive()
    }
}
