//! Walks the stack of the calling thread into addresses.
//!
//! Responsible for choosing the walk: the fast one where it works and is wanted, else the one that
//! works everywhere. Knows nothing of pools, holders or names. Not responsible for keeping stacks:
//! `stack` interns them.

// The processor, the C library, and nobody who wants to see every access: Miri, or whoever builds
// with `--cfg leaktrace_portable`, as a sanitizer's build may.
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(miri),
    not(leaktrace_portable)
))]
mod unwind;
#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(miri),
    not(leaktrace_portable)
)))]
#[path = "absent.rs"]
mod unwind;

mod portable;

use self::unwind::{FRAMES, Unwinder};
use super::waits::Walk;

/// Captures stacks, and makes a `T` of each distinct one. One for a process, in a `static`.
pub(super) struct Captures<T: 'static>(Unwinder<T>);

impl<T: Sync + 'static> Captures<T> {
    pub(super) const fn new() -> Self {
        Self(Unwinder::new())
    }

    /// The stack of this thread, as what `keep` makes of its return addresses, innermost first, or
    /// made of them when it was captured before. `site` tells call sites apart; a wrong one costs
    /// time only.
    pub(super) fn capture(
        &self,
        fast: bool,
        site: usize,
        keep: impl Fn(&[usize]) -> Option<&'static T>,
    ) -> Option<&'static T> {
        if fast && let Ok(kept) = self.0.capture(site, &keep) {
            return kept;
        }
        walk(keep)
    }

    /// Does what the first capture of a process would do, in a place that has the time.
    pub(super) fn prepare(&self) {
        self.0.refresh();
        // Only what is learned on the way matters.
        let _ = self.0.addresses(|_| ());
    }

    /// Forgets what is not true any more, when a library was loaded or unloaded.
    pub(super) fn refresh(&self) {
        self.0.refresh();
    }

    /// Ends stacks at this return address from now on: below it lies nothing worth a name.
    pub(super) fn end_at(&self, address: usize) {
        self.0.end_at(address);
    }
}

// On its own, so that its array takes no room where the fast walk succeeds.
#[cold]
#[inline(never)]
fn walk<R>(keep: impl Fn(&[usize]) -> R) -> R {
    let mut addresses = [0; FRAMES];
    let mut len = 0;
    let _walk = Walk::begins();
    portable::walk(|address| {
        addresses[len] = address;
        len += 1;
        len < FRAMES
    });
    keep(&addresses[..len])
}
