//! Which scopes are carried by a running future, and on which runtime, in the whole process.
//!
//! Responsible for a list that the watchdog reads when the runtime does not run its probe: a job has
//! no monitor of its own, and is as able to block a worker as a request. Not responsible for requests
//! that pass a layer: their monitor lists them.

use std::sync::LazyLock;
// The counter of ids is a static, which loom's atomics cannot be.
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio::runtime::{Handle, Id};

use super::Scope;

/// Each with the runtime of its first poll. One that runs on none blocks no worker.
static RUNS: LazyLock<DashMap<u64, (Scope, Option<Id>)>> = LazyLock::new(DashMap::new);

/// Keeps a scope on the list. Its drop takes it off.
#[derive(Debug)]
pub(super) struct Run(u64);

impl Run {
    pub(super) fn of(scope: &Scope) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
        RUNS.insert(id, (scope.clone(), runtime));
        Self(id)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // The scope is dropped after its shard is left.
        drop(RUNS.remove(&self.0));
    }
}

/// Copies of the scopes that are inside of a poll on this runtime now. Who blocks another one is not
/// to blame.
pub(crate) fn inside_a_poll(runtime: Id) -> Vec<Scope> {
    RUNS.iter()
        .filter(|run| run.1 == Some(runtime) && run.0.in_poll_since().is_some())
        .map(|run| run.0.clone())
        .collect()
}
