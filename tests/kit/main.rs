//! What stands around a pool: each setting is read back from the server or the clock.

#[path = "../support/mod.rs"]
mod support;

mod pooler;
