//! Closing a pool, and saying whom that waits for.
//!
//! Responsible for the record of a `close()` that has not ended. Not responsible for the finding:
//! the watchdog judges the record.

use std::future::Future;
use std::sync::Arc;

use sqlx::Database;

use super::Pool;
use crate::registry::PoolRecord;
use crate::site::CallSite;

/// Ends the record of a `close()`, also when its future is dropped.
struct Closing {
    record: Arc<PoolRecord>,
    id: u64,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.record.closed(self.id);
    }
}

impl<DB: Database> Pool<DB> {
    /// Closes the pool: no more checkouts from here on. Ends when every connection is back.
    ///
    /// While it waits for holders for longer than `DB_LEAK_WAIT`, the finding `close_blocked` names
    /// them.
    #[track_caller]
    pub fn close(&self) -> impl Future<Output = ()> + Send + '_ {
        let closing = Closing {
            record: Arc::clone(self.record()),
            id: self.monitor().closing(self.record(), CallSite::caller()),
        };
        // sqlx marks the pool as closed here, not at the first poll.
        let close = self.raw.close();
        async move {
            close.await;
            drop(closing);
        }
    }
}
