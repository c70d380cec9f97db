//! Each bug of requests, written afresh in a small service that uses the public API alone: the first
//! report names its line, its request and its cause. The same service without the bug stays silent.
//!
//! Real sockets, SQLite, the settings of a user: detail `backtrace` and a threshold.

#[path = "../support/mod.rs"]
mod support;

#[path = "../exhaustion/bench.rs"]
#[allow(dead_code)]
mod bench;

mod blocks;
mod deadlocks;
mod holds;
mod nests;
mod outlives;
mod service;
