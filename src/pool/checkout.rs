//! A connection together with its record.
//!
//! Responsible for the one promise that everything else builds on: wherever it is dropped (no
//! runtime, a dying one, another thread, while unwinding) nothing panics, the permit goes back and
//! the record ends. Not responsible for the state of the connection: see `way_back`.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use sqlx::Database;
use tokio::runtime::Handle;

use super::hooks;
use crate::monitor::Monitor;
use crate::registry::{Lease, PoolRecord};

/// A connection that is out, the lease that says so, and who watches it.
pub(super) struct Checkout<DB: Database> {
    /// `Some` until the connection is given to sqlx or to the user for good.
    raw: Option<sqlx::pool::PoolConnection<DB>>,
    pub(super) lease: Lease,
    pub(super) monitor: Monitor,
}

impl<DB: Database> Checkout<DB> {
    pub(super) fn new(
        raw: sqlx::pool::PoolConnection<DB>,
        lease: Lease,
        backend: Option<i64>,
        monitor: Monitor,
    ) -> Self {
        if let Some(backend) = backend {
            lease.cell().on_backend(backend);
        }
        Self {
            raw: Some(raw),
            lease,
            monitor,
        }
    }

    pub(super) fn raw(&self) -> &DB::Connection {
        // Only the methods below take it, and they consume or end the checkout.
        self.raw
            .as_ref()
            .expect("the connection is here until the checkout ends")
    }

    pub(super) fn raw_mut(&mut self) -> &mut DB::Connection {
        self.raw
            .as_mut()
            .expect("the connection is here until the checkout ends")
    }

    /// The runtime to work on: the one that is current, or the pool's.
    pub(super) fn runtime(&self) -> Option<Handle> {
        Handle::try_current()
            .ok()
            .or_else(|| self.lease.cell().pool.runtime())
    }

    /// The connection and the record apart, so that one may change while the other is looked at.
    pub(super) fn parts(&mut self) -> Parts<'_, DB> {
        Parts {
            raw: &mut self.raw,
            lease: &self.lease,
            monitor: &self.monitor,
        }
    }

    /// Closes the connection. Its permit is kept until that is done.
    ///
    /// # Errors
    /// What closing fails with.
    pub(super) async fn close(mut self) -> Result<(), sqlx::Error> {
        match self.raw.take() {
            Some(raw) => raw.close().await,
            None => Ok(()),
        }
    }

    /// Gives the connection away; the pool may open another. The record ends.
    pub(super) fn detach(mut self) -> DB::Connection {
        let raw = self.raw.take().expect("a checkout ends once");
        self.in_runtime(|| raw.detach())
            .expect("a thread can be started")
    }

    /// Gives the connection away with its permit. The record stays.
    pub(super) fn leak(mut self) -> DB::Connection {
        let raw = self.raw.take().expect("a checkout ends once");
        let raw = self
            .in_runtime(|| raw.leak())
            .expect("a thread can be started");
        self.lease.leak();
        raw
    }

    /// Runs `work` where sqlx can start tasks: it does so in drops, and panics without a runtime.
    /// `None`: it could not be run, and was given up.
    fn in_runtime<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let pool = &self.lease.cell().pool;
        match Handle::try_current() {
            Ok(_) => Some(work()),
            // A value of a thread that ends: no runtime can be entered here any more.
            Err(error) if error.is_thread_local_destroyed() => elsewhere(pool, work),
            Err(_) => Some(inside(pool, work)),
        }
    }
}

/// Runs `work` inside of a runtime, where none is current.
fn inside<R>(pool: &PoolRecord, work: impl FnOnce() -> R) -> R {
    if let Some(runtime) = pool.runtime() {
        let _inside = runtime.enter();
        return work();
    }
    // No runtime was ever seen. One that runs nothing takes sqlx's task and drops it: the connection
    // closes and the permit goes back. Not being inside of a runtime, this may block.
    match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => {
            let _inside = runtime.enter();
            work()
        }
        Err(_) => work(),
    }
}

/// Runs `work` on a thread of its own, and waits for it.
fn elsewhere<R: Send + 'static>(
    pool: &Arc<PoolRecord>,
    work: impl FnOnce() -> R + Send + 'static,
) -> Option<R> {
    // Forgotten, where no thread can be had: a place that is lost is better than a panic in the
    // drop of a thread-local value, which ends the process.
    let work = ManuallyDrop::new(work);
    let pool = Arc::clone(pool);
    std::thread::Builder::new()
        .name("leaktrace-drop".into())
        .spawn(move || inside(&pool, ManuallyDrop::into_inner(work)))
        .ok()?
        .join()
        .ok()
}

/// A checkout on its way back.
pub(super) struct Parts<'a, DB: Database> {
    raw: &'a mut Option<sqlx::pool::PoolConnection<DB>>,
    pub(super) lease: &'a Lease,
    pub(super) monitor: &'a Monitor,
}

impl<DB: Database> Parts<'_, DB> {
    pub(super) fn raw_mut(&mut self) -> &mut DB::Connection {
        self.raw
            .as_mut()
            .expect("the connection is here until the way back ends")
    }

    /// Gives the connection to sqlx's own return: it tests it and makes it idle, or closes it.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; its permit goes back.
    pub(super) async fn return_to_pool(self) {
        if let Some(raw) = self.raw.as_mut() {
            // The future takes the connection with it; the empty rest is dropped with the checkout.
            hooks::proven(raw.return_to_pool()).await;
        }
    }

    /// Closes the connection. Its permit is kept until that is done.
    ///
    /// # Errors
    /// What closing fails with.
    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        match self.raw.take() {
            Some(raw) => raw.close().await,
            None => Ok(()),
        }
    }
}

impl<DB: Database> Drop for Checkout<DB> {
    fn drop(&mut self) {
        if let Some(mut raw) = self.raw.take() {
            self.in_runtime(move || {
                // The future owns the connection; dropped unpolled, it closes it and returns the
                // permit. The state of a connection that ends here is not known.
                drop(raw.return_to_pool());
                drop(raw);
            });
        }
    }
}
