//! The way of a connection from its guard to the pool.
//!
//! Responsible for what sqlx leaves to luck: nothing that is open reaches the next borrower.
//! Everything that was seen to end well goes straight home; what was not is settled with the server
//! first, and what cannot be settled is closed. Not responsible for sqlx's own tests (ping, hooks,
//! lifetime): its return does those afterwards.

use std::time::Duration;

use sqlx::{Connection, Database, Error};

use super::checkout::Checkout;
use super::conn::Conduct;
use super::probe::{self, Found};

/// A graceful close may not take longer; sqlx's own limit for the same.
const CLOSE: Duration = Duration::from_secs(5);

/// Sends the connection home in a task of its own. Never panics; without a runtime the connection
/// is closed, and its permit goes back.
pub(super) fn start<DB: Database>(checkout: Checkout<DB>, conduct: Conduct) {
    checkout.lease.release();
    if let Some(runtime) = checkout.runtime() {
        runtime.spawn(walk(checkout, conduct));
    }
}

/// Sends the connection home, and ends when it is there.
pub(super) async fn finish<DB: Database>(checkout: Checkout<DB>, conduct: Conduct) {
    checkout.lease.release();
    if let Some(runtime) = checkout.runtime() {
        // In a task, so that it arrives also when this future is dropped.
        let _ = runtime.spawn(walk(checkout, conduct)).await;
    }
}

async fn walk<DB: Database>(mut checkout: Checkout<DB>, conduct: Conduct) {
    let settled = settle(&mut checkout, conduct).await;
    if settled.is_ok() && !conduct.close {
        checkout.return_to_pool().await;
    } else if let Ok(Err(error)) = tokio::time::timeout(CLOSE, checkout.close()).await {
        tracing::debug!(target: "leaktrace", %error, "closing a connection");
    }
}

async fn settle<DB: Database>(
    checkout: &mut Checkout<DB>,
    conduct: Conduct,
) -> Result<Found, Error> {
    let doubts = checkout.lease.cell().doubts();
    let conn = checkout.raw_mut();
    if conduct.close && !doubts.by_text {
        return Ok(Found::Clean);
    }
    if doubts.cut {
        probe::drain::<DB>(conn).await?;
    }
    let mut found = Found::Clean;
    if conn.is_in_transaction() {
        probe::roll_back::<DB>(conn).await?;
        if !conduct.in_transaction && doubts.by_text {
            found = Found::Dirty;
        }
    } else if doubts.unsure {
        let standing = probe::standing::<DB>(conn).await?;
        if probe::heal::<DB>(conn, standing).await? == Found::Dirty && doubts.by_text {
            found = Found::Dirty;
        }
    }
    Ok(found)
}
