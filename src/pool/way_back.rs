//! The way of a connection from its guard to the pool.
//!
//! Responsible for what sqlx leaves to luck: nothing that is open reaches the next borrower.
//! Everything that was seen to end well goes straight home; what was not is settled with the server
//! first, and what cannot be settled is closed. Not responsible for sqlx's own tests (ping, hooks,
//! lifetime): its return does those afterwards. Nor for time limits: the watchdog keeps them, by
//! giving the return up.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use sqlx::{Connection, Database, Error};
use tokio::task::JoinHandle;

use super::checkout::{Checkout, Parts};
use super::conn::Conduct;
use super::probe::{self, Found, Past, Standing};
use super::witness::{self, Server};
use crate::finding::Kind;
use crate::registry::{Doubts, Rollback, Word};
use crate::scope::Scope;

/// Sends the connection home in a task of its own. Never panics; without a runtime the connection
/// is closed, and its permit goes back.
pub(super) fn start<DB: Database>(checkout: Checkout<DB>, conduct: Conduct) {
    drop(send(checkout, conduct));
}

/// Sends the connection home, and ends when it is there.
pub(super) async fn finish<DB: Database>(checkout: Checkout<DB>, conduct: Conduct) {
    // In a task, so that it arrives also when this future is dropped.
    if let Some(task) = send(checkout, conduct) {
        let _ = task.await;
    }
}

fn send<DB: Database>(checkout: Checkout<DB>, conduct: Conduct) -> Option<JoinHandle<()>> {
    checkout.lease.release(true);
    // The watchdog keeps the limit, at any detail.
    checkout.monitor.returning();
    let runtime = checkout.runtime()?;
    Some(runtime.spawn(walk(checkout, conduct)))
}

/// # Cancel safety
/// Dropped at any point, the connection is closed and its permit goes back.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps room for the checkout twice, and each byte of a task is copied"
)]
fn walk<DB: Database>(
    mut checkout: Checkout<DB>,
    conduct: Conduct,
) -> impl Future<Output = ()> + Send + 'static {
    async move {
        let parts = checkout.parts();
        let cell = parts.lease.cell();
        cell.pool.runtime_is_here();
        let mut home = pin!(go_home(parts, conduct));
        // Ends, and with it the connection, when the watchdog gives this return up.
        poll_fn(|cx| match cell.is_given_up(cx) {
            true => Poll::Ready(()),
            false => home.as_mut().poll(cx),
        })
        .await;
    }
}

/// Straight to sqlx where nothing is to be settled. The rest is boxed: it is large, and rare.
async fn go_home<DB: Database>(mut parts: Parts<'_, DB>, conduct: Conduct) {
    let cell = parts.lease.cell();
    let is_certain =
        conduct.is_plain() && cell.doubts().is_certain() && !parts.raw_mut().is_in_transaction();
    // Asked about while it had not begun: then the long way.
    if is_certain && !cell.leave().await {
        return parts.return_to_pool().await;
    }
    Box::pin(settle_and_return(parts, conduct)).await;
}

async fn settle_and_return<DB: Database>(mut parts: Parts<'_, DB>, conduct: Conduct) {
    let settled = settle(&mut parts, conduct).await;
    let mut healthy = settled.is_ok() && !conduct.close;
    if healthy && parts.lease.cell().leave().await {
        // A cancel that arrives late hits this question, and not the next borrower.
        healthy = probe::settle::<DB>(parts.raw_mut()).await.is_ok();
    }
    if healthy {
        parts.return_to_pool().await;
    } else if let Err(error) = parts.close().await {
        tracing::debug!(target: "leaktrace::pool", %error, "closing a connection");
    }
}

async fn settle<DB: Database>(parts: &mut Parts<'_, DB>, conduct: Conduct) -> Result<(), Error> {
    let monitor = parts.monitor;
    let cell = Arc::clone(parts.lease.cell());
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
    if doubts.cut_prepared && Server::of::<DB>(parts.raw_mut()) == Server::MySql {
        // The driver does not count the answers to a prepare that was cut: reading on may wait for
        // ever, or take one answer for another. Only while the server runs it, it was not that.
        match cell.pool.is_running(cell.backend()).await {
            Word::Idle | Word::Unreachable | Word::Refused => {
                return Err(Error::Protocol("cut while a statement was prepared".into()));
            }
            Word::Cancelled | Word::Unknown => {}
        }
    }
    let scope = cell.scope();
    let conn = parts.raw_mut();
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
        wrote = ask_for_writes::<DB>(conn, conduct, doubts, scope.as_ref()).await;
        probe::roll_back::<DB>(conn, past).await?;
        found = Found::Dirty;
    } else if doubts.unsure {
        let standing = probe::standing::<DB>(conn).await?;
        if standing == Standing::Open {
            wrote = ask_for_writes::<DB>(conn, conduct, doubts, scope.as_ref()).await;
        }
        found = probe::heal::<DB>(conn, standing, past).await?;
    }
    if wrote {
        monitor.dropped_writes(&cell);
    }
    // What a guard left open was counted when it was dropped.
    if found == Found::Dirty && !conduct.in_transaction && !doubts.rollback_queued {
        cell.pool.tallies.rolled_back(match doubts.by_text {
            true => Rollback::Unseen,
            false => Rollback::Cut,
        });
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
        scope.is_some_and(|scope| scope.is_of_request() && scope.success() != Some(false));
    if !in_request || conduct.discarded || !doubts.may_have_written {
        return false;
    }
    doubts.wrote
        || witness::has_written::<DB>(conn, conduct.changes)
            .await
            .unwrap_or(false)
}
