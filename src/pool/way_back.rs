//! The way of a connection from its guard to the pool.
//!
//! Responsible for what sqlx leaves to luck: nothing that is open reaches the next borrower.
//! Everything that was seen to end well goes straight home; what was not is settled with the server
//! first, and what cannot be settled is closed. Not responsible for sqlx's own tests (ping, hooks,
//! lifetime): its return does those afterwards. Nor for time limits: the watchdog keeps them, by
//! aborting the task.

use sqlx::{Connection, Database, Error};
use tokio::task::JoinHandle;

use super::checkout::Checkout;
use super::conn::Conduct;
use super::probe::{self, Found, Past, Standing};
use super::witness::{self, Server};
use crate::finding::Kind;
use crate::monitor::Monitor;
use crate::registry::{Doubts, Returning, Word};
use crate::scope::Scope;

/// Sends the connection home in a task of its own. Never panics; without a runtime the connection
/// is closed, and its permit goes back.
pub(super) fn start<DB: Database>(checkout: Checkout<DB>, conduct: Conduct, monitor: &Monitor) {
    drop(send(checkout, conduct, monitor));
}

/// Sends the connection home, and ends when it is there.
pub(super) async fn finish<DB: Database>(
    checkout: Checkout<DB>,
    conduct: Conduct,
    monitor: &Monitor,
) {
    // In a task, so that it arrives also when this future is dropped.
    if let Some(task) = send(checkout, conduct, monitor) {
        let _ = task.await;
    }
}

fn send<DB: Database>(
    checkout: Checkout<DB>,
    conduct: Conduct,
    monitor: &Monitor,
) -> Option<JoinHandle<()>> {
    checkout.lease.release();
    let runtime = checkout.runtime()?;
    let cell = checkout.lease.cell();
    let returning = cell.pool.returns.begin(cell, checkout.backend, &runtime);
    let set_task = returning.task();
    monitor.returning();
    let task = runtime.spawn(walk(checkout, conduct, monitor.clone(), returning));
    set_task(task.abort_handle());
    Some(task)
}

/// # Cancel safety
/// Dropped at any point, the connection is closed and its permit goes back.
async fn walk<DB: Database>(
    mut checkout: Checkout<DB>,
    conduct: Conduct,
    monitor: Monitor,
    returning: Returning,
) {
    let settled = settle(&mut checkout, conduct, &monitor).await;
    let mut healthy = settled.is_ok() && !conduct.close;
    if healthy && returning.leave().await {
        // A cancel that arrives late hits this question, and not the next borrower.
        healthy = probe::settle::<DB>(checkout.raw_mut()).await.is_ok();
    }
    if healthy {
        checkout.return_to_pool().await;
    } else if let Err(error) = checkout.close().await {
        tracing::debug!(target: "leaktrace::pool", %error, "closing a connection");
    }
    drop(returning);
}

async fn settle<DB: Database>(
    checkout: &mut Checkout<DB>,
    conduct: Conduct,
    monitor: &Monitor,
) -> Result<(), Error> {
    let cell = checkout.lease.cell().clone();
    let doubts = cell.doubts();
    if conduct.strayed {
        monitor.ended_badly(
            &cell,
            Kind::DirtyReturn,
            "lent as a raw connection after a nested begin had ended its transaction, so what ran there was committed at once; closed",
            Some("look at the error of the nested begin, or at who cancelled it, before going on"),
        );
    }
    if conduct.close && !doubts.by_text && !conduct.in_transaction {
        return Ok(());
    }
    if doubts.broken {
        return Err(Error::Protocol("client and server no longer agree".into()));
    }
    if doubts.cut_prepared && Server::of::<DB>(checkout.raw()) == Server::MySql {
        // The driver does not count the answers to a prepare that was cut: reading on may wait for
        // ever, or take one answer for another. Only while the server runs it, it was not that.
        match cell.pool.is_running(checkout.backend).await {
            Word::Idle | Word::Unreachable => {
                return Err(Error::Protocol("cut while a statement was prepared".into()));
            }
            Word::Cancelled | Word::Unknown => {}
        }
    }
    let conn = checkout.raw_mut();
    let past = match (doubts.by_text, doubts.cut) {
        (true, _) => Past::Unseen,
        (false, true) => Past::Cut,
        (false, false) => Past::Seen,
    };
    if doubts.unsure {
        probe::drain::<DB>(conn, past).await?;
    }
    let reported = doubts.by_text && !conduct.in_transaction;
    let mut found = Found::Clean;
    let mut wrote = false;
    if conn.is_in_transaction() {
        wrote = ask_for_writes::<DB>(conn, conduct, doubts, cell.scope.as_ref()).await;
        probe::roll_back::<DB>(conn, past).await?;
        found = Found::Dirty;
    } else if doubts.unsure {
        let standing = probe::standing::<DB>(conn).await?;
        if standing == Standing::Open {
            wrote = ask_for_writes::<DB>(conn, conduct, doubts, cell.scope.as_ref()).await;
        }
        found = probe::heal::<DB>(conn, standing, past).await?;
    }
    if wrote {
        monitor.dropped_writes(&cell);
    }
    if found == Found::Dirty && reported {
        monitor.ended_badly(
            &cell,
            Kind::DirtyReturn,
            "rolled back before anybody else could get it",
            Some("begin with begin() instead of text: its guard rolls back by itself"),
        );
    }
    Ok(())
}

/// Whether the server knows of writes in the open transaction. Asked only where that decides
/// whether something is lost: a request is under way, and nobody said `discard()`.
async fn ask_for_writes<DB: Database>(
    conn: &mut DB::Connection,
    conduct: Conduct,
    doubts: Doubts,
    scope: Option<&Scope>,
) -> bool {
    let in_request =
        scope.is_some_and(|scope| scope.is_of_request() && scope.told_success() != Some(false));
    if !in_request || conduct.discarded || !doubts.may_have_written {
        return false;
    }
    doubts.wrote
        || witness::has_written::<DB>(conn, conduct.changes)
            .await
            .unwrap_or(false)
}
