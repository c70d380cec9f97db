//! Which scopes are carried by a running future, in the whole process.
//!
//! Responsible for a list that the watchdog reads when the runtime does not run its probe: a job has
//! no monitor of its own, and is as able to block a worker as a request. Not responsible for requests
//! that pass a layer: their monitor lists them.

use std::sync::LazyLock;
// The counter of ids is a static, which loom's atomics cannot be.
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use super::Scope;

static RUNS: LazyLock<DashMap<u64, Scope>> = LazyLock::new(DashMap::new);

/// Keeps a scope on the list. Its drop takes it off.
#[derive(Debug)]
pub(super) struct Run(u64);

impl Run {
    pub(super) fn of(scope: &Scope) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        RUNS.insert(id, scope.clone());
        Self(id)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // The scope is dropped after its shard is left.
        drop(RUNS.remove(&self.0));
    }
}

/// Copies of the scopes that are inside of a poll now.
pub(crate) fn inside_a_poll() -> Vec<Scope> {
    RUNS.iter()
        .filter(|scope| scope.in_poll_since().is_some())
        .map(|scope| scope.clone())
        .collect()
}
