//! The Rust of README.md and docs/, so that it compiles: each block in them is a piece of this code.
//!
//! Where a page shows a bug, the code here has that bug, and `reports.rs` runs it; the rest is only
//! compiled.

#![allow(dead_code, missing_debug_implementations)]

mod axum;
mod bugs;
mod guide;
mod monitoring;
mod pools;
mod remedies;

use std::error::Error;
use std::time::Duration;

type Failure = Box<dyn Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

/// A service of another company.
struct Partner;

impl Partner {
    async fn ask(&self, _what: &str) -> Result<String> {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok("label 4711".into())
    }

    async fn send(&self, _row: i64) -> Result<()> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }
}

/// There is something wrong with order 13.
fn check(id: i64) -> Result<()> {
    match id {
        13 => Err("nobody can pay that".into()),
        _ => Ok(()),
    }
}
