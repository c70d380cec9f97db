//! A future that runs inside a scope.
//!
//! Responsible for entering the scope around every poll and around the drop, and for the end of a
//! scope that no layer ends.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::runs::Run;
use super::{OnUnwind, Outcome, Scope};

pin_project! {
    /// A future inside a [`Scope`], made by [`Scope::run`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Scoped<F> {
        // An option only so that the drop can happen inside the scope; `None` at no other time.
        #[pin]
        inner: Option<F>,
        scope: Scope,
        ends_scope: bool,
        // Listed from the first poll to the drop.
        run: Option<Run>,
    }

    impl<F> PinnedDrop for Scoped<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // First the verdict, then the drop: whoever looks at what the future lets go of must
            // find that its scope was cut.
            if *this.ends_scope {
                this.scope.end_now(Outcome::Cancelled);
            }
            let _entered = this.scope.enter_unstamped();
            this.inner.set(None);
        }
    }
}

impl Scope {
    /// Runs `future` in this scope: [`Scope::current`] is this scope inside every poll of it.
    ///
    /// The first future given to a scope made by [`Scope::new`] ends it: completed, cancelled
    /// (dropped before it was ready) or panicked. Any later one only carries the scope, and so does
    /// every one given to the scope of a request. Use that to take a scope along to another task.
    ///
    /// # Cancel safety
    /// Exactly that of `future`.
    ///
    /// # Cost
    /// For each poll one clock read and six atomic operations; nothing is allocated. The first poll and
    /// the drop each lock a shard of a process-wide list for a moment.
    ///
    /// # Examples
    /// ```
    /// use leaktrace::Scope;
    ///
    /// # async fn handle(_: u32) {}
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// for message in 0..3 {
    ///     Scope::new("consumer: order-events").run(handle(message)).await;
    /// }
    /// # }
    /// ```
    pub fn run<F: Future>(&self, future: F) -> Scoped<F> {
        Scoped {
            inner: Some(future),
            scope: self.clone(),
            ends_scope: self.claim(),
            run: None,
        }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (scope, ends_scope) = (&*this.scope, *this.ends_scope);
        this.run.get_or_insert_with(|| Run::of(scope));
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Pending;
        };
        let polled = {
            let _on_unwind = OnUnwind::new(|| {
                if ends_scope {
                    scope.end_now(Outcome::Panicked);
                }
            });
            let _entered = scope.enter();
            inner.poll(cx)
        };
        if ends_scope && polled.is_ready() {
            scope.end_now(Outcome::Completed);
        }
        polled
    }
}

impl<F> fmt::Debug for Scoped<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoped")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt;

    use super::*;

    fn outcome(scope: &Scope) -> Option<Outcome> {
        scope.ended().map(|end| end.1)
    }

    #[tokio::test]
    async fn the_first_run_ends_the_scope_and_later_ones_only_carry_it() {
        let scope = Scope::new("job");
        let first = scope.run(ready(()));
        scope.run(ready(())).await;
        drop(scope.run(pending::<()>()));
        assert_eq!(outcome(&scope), None, "carried ones end nothing");
        first.await;
        assert_eq!(outcome(&scope), Some(Outcome::Completed));
    }

    #[tokio::test]
    async fn a_dropped_run_was_cancelled_before_its_future_is_dropped() {
        type Seen = Option<(Option<Outcome>, Option<u64>)>;
        struct Looks(Scope, Arc<Mutex<Seen>>);
        impl Drop for Looks {
            fn drop(&mut self) {
                let current = Scope::current().map(|scope| scope.id());
                *self.1.lock().expect("not poisoned") = Some((outcome(&self.0), current));
            }
        }
        let scope = Scope::new("job");
        let seen = Arc::new(Mutex::new(None));
        let looks = Looks(scope.clone(), seen.clone());
        let mut run = Box::pin(scope.run(async move {
            pending::<()>().await;
            drop(looks);
        }));
        assert!((&mut run).now_or_never().is_none());
        drop(run);
        let seen = seen.lock().expect("not poisoned").take();
        assert_eq!(seen, Some((Some(Outcome::Cancelled), Some(scope.id()))));
    }

    #[tokio::test]
    async fn a_panic_is_no_cancellation() {
        let scope = Scope::new("job");
        let task = tokio::spawn(scope.run(async { panic!("on purpose") }));
        assert!(task.await.is_err_and(|error| error.is_panic()));
        assert_eq!(outcome(&scope), Some(Outcome::Panicked));
    }

    #[tokio::test]
    async fn a_panic_in_a_carried_task_does_not_end_the_scope() {
        let scope = Scope::of_request("GET /".into(), None, None);
        let task = tokio::spawn(scope.run(async { panic!("on purpose") }));
        assert!(task.await.is_err());
        assert_eq!(outcome(&scope), None);
    }

    #[tokio::test]
    async fn two_scopes_in_one_task_never_mix() {
        async fn always(name: &str) {
            for _ in 0..50 {
                assert_eq!(Scope::current().expect("in a scope").name(), name);
                tokio::task::yield_now().await;
            }
        }
        let (left, right) = (Scope::new("left"), Scope::new("right"));
        let outside = async {
            for _ in 0..50 {
                assert!(Scope::current().is_none());
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(
            left.run(always("left")),
            right.run(async {
                tokio::join!(always("right"), Scope::new("inner").run(always("inner")));
                always("right").await;
            }),
            outside
        );
    }

    #[test]
    fn a_run_crosses_threads_if_its_future_does() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<Scoped<std::future::Ready<()>>>();
    }
}
