//! What the integration tests stand on: databases, a bad network, the server's truth, captured output.
//!
//! Not a test itself. Each `tests/NAME/main.rs` takes it in with
//! `#[path = "../support/mod.rs"] mod support;`. `tests/harness` proves that each part really does
//! what it says; nothing in here knows a type of the crate under test.

// Every test binary compiles its own copy and uses a part of it; the rest is not dead.
#![allow(dead_code, unused_imports)]

pub(crate) mod capture;
pub(crate) mod db;
pub(crate) mod doors;
pub(crate) mod events;
pub(crate) mod eventually;
pub(crate) mod observer;
pub(crate) mod proxy;
pub(crate) mod servers;

pub(crate) use capture::Capture;
pub(crate) use db::{Db, TestDb, database, ran_on};
pub(crate) use events::Events;
pub(crate) use eventually::eventually;
pub(crate) use observer::Observer;
pub(crate) use proxy::{Direction, Proxy};
