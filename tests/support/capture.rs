//! A list that another thread fills and a test waits on: the core of every capturing sink.
//!
//! Responsible for keeping, listing and waiting, with a failure text that lists what was seen. It
//! knows no type of the crate: a test implements the crate's sink with `capture.push(..)`.

use std::fmt::{Debug, Write};
use std::panic::Location;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Everything that was pushed, in order. Clones share it.
#[derive(Debug)]
pub(crate) struct Capture<T> {
    inner: Arc<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    items: Mutex<Vec<T>>,
    pushed: Condvar,
    notify: tokio::sync::Notify,
}

impl<T> Clone for Capture<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<T: Clone + Debug> Default for Capture<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Debug> Capture<T> {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                items: Mutex::default(),
                pushed: Condvar::new(),
                notify: tokio::sync::Notify::new(),
            }),
        }
    }

    fn items(&self) -> MutexGuard<'_, Vec<T>> {
        // A failed wait panics in a test while others may still push.
        self.inner
            .items
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, item: T) {
        self.items().push(item);
        self.inner.pushed.notify_all();
        self.inner.notify.notify_waiters();
    }

    /// A copy of everything so far.
    pub(crate) fn all(&self) -> Vec<T> {
        self.items().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.items().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items().is_empty()
    }

    /// Forgets everything so far and returns it.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.items())
    }

    /// Waits until `pick` finds what it looks for; panics with everything seen when it does not.
    ///
    /// The limit is real time. Under tokio's paused time use [`Self::wait_for_blocking`]: waiting
    /// here would run the paused clock ahead.
    #[track_caller]
    pub(crate) fn wait_for<R>(
        &self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&[T]) -> Option<R>,
    ) -> impl Future<Output = R> {
        let caller = Location::caller();
        async move {
            let start = Instant::now();
            loop {
                // Before the look, so that a push between look and wait is not missed.
                let mut notified = std::pin::pin!(self.inner.notify.notified());
                notified.as_mut().enable();
                let found = pick(&self.items());
                if let Some(found) = found {
                    return found;
                }
                let Some(left) = within.checked_sub(start.elapsed()) else {
                    panic!("{}", self.missing(what, within, caller));
                };
                let _ = tokio::time::timeout(left, notified).await;
            }
        }
    }

    /// [`Self::wait_for`], blocking this thread.
    #[track_caller]
    pub(crate) fn wait_for_blocking<R>(
        &self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&[T]) -> Option<R>,
    ) -> R {
        let caller = Location::caller();
        let start = Instant::now();
        let mut items = self.items();
        loop {
            if let Some(found) = pick(&items) {
                return found;
            }
            let Some(left) = within.checked_sub(start.elapsed()) else {
                drop(items);
                panic!("{}", self.missing(what, within, caller));
            };
            items = self
                .inner
                .pushed
                .wait_timeout(items, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn missing(&self, what: &str, within: Duration, caller: &Location<'_>) -> String {
        let items = self.items();
        let mut text = format!("not within {within:?}: {what} (asked at {caller}); ");
        if items.is_empty() {
            text.push_str("nothing was captured");
        } else {
            let _ = write!(text, "captured {}:", items.len());
            for (at, item) in items.iter().enumerate() {
                let _ = write!(text, "\n  {at}: {item:?}");
            }
        }
        text
    }
}
