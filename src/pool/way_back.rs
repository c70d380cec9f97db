//! The way of a connection from its guard to the pool.
//!
//! Responsible for what sqlx leaves to luck: nothing that is open reaches the next borrower.
//! Everything that was seen to end well goes straight home; what was not is settled with the server
//! first, and what cannot be settled is closed. Not responsible for sqlx's own tests (ping, hooks,
//! lifetime): its return does those afterwards.

use std::time::Duration;

use sqlx::{Connection, Database};

use super::checkout::Checkout;
use super::conn::Conduct;
use super::probe;

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
    let settled = !conduct.close && settle(&mut checkout).await.is_ok();
    if settled {
        checkout.return_to_pool().await;
    } else if let Ok(Err(error)) = tokio::time::timeout(CLOSE, checkout.close()).await {
        tracing::debug!(target: "leaktrace", %error, "closing a connection");
    }
}

async fn settle<DB: Database>(checkout: &mut Checkout<DB>) -> Result<(), sqlx::Error> {
    let unsure = checkout.lease.cell().is_unsure();
    let conn = checkout.raw_mut();
    if conn.is_in_transaction() {
        probe::roll_back::<DB>(conn).await?;
    }
    if unsure {
        probe::settle::<DB>(conn).await?;
    }
    Ok(())
}
