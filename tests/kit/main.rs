//! What stands around a pool: each setting is read back from the server or the clock.

#[path = "../support/mod.rs"]
mod support;

mod contradictions;
mod names;
mod pooler;
mod secrets;
mod server_limits;
mod sessions;
mod settle;
mod start;
mod tls;
