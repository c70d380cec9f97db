//! Which scope the code on this thread runs for, right now.
//!
//! Responsible for the thread's cell and for the guards that change and restore it. A future may
//! move between threads from poll to poll, so the cell is set around every poll and holds nothing
//! in between.

use std::cell::Cell;
use std::marker::PhantomData;

use super::Scope;
use crate::clock::Moment;

thread_local! {
    static CURRENT: Cell<Option<Scope>> = const { Cell::new(None) };
}

/// Puts `next` in the cell and hands out what was there; does nothing on a thread that is ending.
fn replace(next: Option<Scope>) -> Option<Scope> {
    CURRENT
        .try_with(|cell| cell.replace(next))
        .unwrap_or_default()
}

impl Scope {
    /// Returns the scope the calling code runs in; `None` outside of any.
    ///
    /// A task made by `tokio::spawn` starts outside: carry the scope over with [`Scope::run`].
    ///
    /// # Cost
    /// One thread-local read and one atomic increment.
    ///
    /// # Examples
    /// ```
    /// use leaktrace::Scope;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// Scope::new("import").run(async {
    ///     let scope = Scope::current().unwrap();
    ///     let task = tokio::spawn(scope.run(async { Scope::current().unwrap().name().len() }));
    ///     assert_eq!(task.await.unwrap(), "import".len());
    /// })
    /// .await;
    /// # }
    /// ```
    pub fn current() -> Option<Self> {
        CURRENT
            .try_with(|cell| {
                let scope = cell.take();
                cell.set(scope.clone());
                scope
            })
            .unwrap_or_default()
    }

    /// Makes this the current scope until the guard is dropped, and stamps a poll.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.0.polls.enter(Moment::now());
        Entered {
            scope: self,
            outer: replace(Some(self.clone())),
            is_poll: true,
            on_this_thread: PhantomData,
        }
    }

    /// Like [`Scope::enter`]; a poll after the end is of nobody's interest, and reads no clock.
    pub(crate) fn enter_until_ended(&self) -> Entered<'_> {
        match self.ended() {
            None => self.enter(),
            Some(_) => self.enter_unstamped(),
        }
    }

    /// Like [`Scope::enter`] for what is no poll: a service's `call`, the drop of a future.
    pub(crate) fn enter_unstamped(&self) -> Entered<'_> {
        Entered {
            scope: self,
            outer: replace(Some(self.clone())),
            is_poll: false,
            on_this_thread: PhantomData,
        }
    }
}

/// Keeps a scope current; its drop restores the outer one, also while a panic unwinds.
#[must_use]
pub(crate) struct Entered<'a> {
    scope: &'a Scope,
    outer: Option<Scope>,
    is_poll: bool,
    /// Dropped elsewhere, it would restore another thread's cell: so it is not `Send`.
    on_this_thread: PhantomData<*const ()>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        drop(replace(self.outer.take()));
        if self.is_poll {
            self.scope.0.polls.exit();
        }
    }
}

/// Calls `then` when it is dropped by a panic that began while it lived.
///
/// It stands on the stack inside a poll. A future that is dropped later cannot tell a panic of its
/// own from a client that went away.
#[must_use]
pub(crate) struct OnUnwind<F: FnMut()> {
    /// A poll may run inside a drop that a panic caused: that panic is not this poll's.
    was_panicking: bool,
    then: F,
}

impl<F: FnMut()> OnUnwind<F> {
    pub(crate) fn new(then: F) -> Self {
        Self {
            was_panicking: std::thread::panicking(),
            then,
        }
    }
}

impl<F: FnMut()> Drop for OnUnwind<F> {
    fn drop(&mut self) {
        if !self.was_panicking && std::thread::panicking() {
            (self.then)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn current_name() -> Option<String> {
        Scope::current().map(|scope| scope.name().to_owned())
    }

    #[test]
    fn nested_scopes_restore_the_outer_one() {
        let (outer, inner) = (Scope::new("outer"), Scope::new("inner"));
        assert_eq!(current_name(), None);
        let outer_entered = outer.enter();
        {
            let _inner_entered = inner.enter();
            assert_eq!(current_name().as_deref(), Some("inner"));
        }
        assert_eq!(current_name().as_deref(), Some("outer"));
        drop(outer_entered);
        assert_eq!(current_name(), None);
    }

    #[test]
    fn a_panic_restores_the_outer_scope_and_ends_the_stamp() {
        let (outer, inner) = (Scope::new("outer"), Scope::new("inner"));
        let _entered = outer.enter();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _entered = inner.enter();
            panic!("in the middle of a poll");
        }));
        assert!(unwound.is_err());
        assert_eq!(current_name().as_deref(), Some("outer"));
        assert_eq!(inner.in_poll_since(), None);
        assert!(inner.last_polled().is_some());
    }

    #[test]
    fn what_is_no_poll_leaves_no_stamp() {
        let scope = Scope::new("call");
        {
            let _entered = scope.enter_unstamped();
            assert_eq!(current_name().as_deref(), Some("call"));
            assert_eq!(scope.in_poll_since(), None);
        }
        assert_eq!(scope.last_polled(), None);
    }

    #[test]
    fn leaving_a_scope_lets_go_of_it() {
        let scope = Scope::new("once");
        drop(scope.enter());
        assert_eq!(std::sync::Arc::strong_count(&scope.0), 1);
    }

    #[test]
    fn only_a_panic_that_began_inside_counts() {
        let mut seen = 0;
        drop(OnUnwind::new(|| seen += 1));
        assert_eq!(seen, 0, "no panic at all");

        struct InDrop<'a>(&'a Cell<u32>);
        impl Drop for InDrop<'_> {
            fn drop(&mut self) {
                drop(OnUnwind::new(|| self.0.set(self.0.get() + 1)));
            }
        }
        let count = Cell::new(0);
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let _in_drop = InDrop(&count);
            panic!("elsewhere");
        }));
        assert_eq!(count.get(), 0, "a panic from elsewhere");

        let _ = catch_unwind(AssertUnwindSafe(|| {
            let _here = OnUnwind::new(|| count.set(count.get() + 1));
            panic!("here");
        }));
        assert_eq!(count.get(), 1);
    }
}
