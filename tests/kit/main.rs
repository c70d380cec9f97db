//! What stands around a pool: each setting is read back from the server or the clock.

#[path = "../support/mod.rs"]
mod support;

mod alive;
mod budget;
mod contradictions;
mod health;
mod migrations;
mod names;
mod pooler;
mod replicated;
mod roles;
mod secrets;
mod server_limits;
mod sessions;
mod settle;
mod start;
mod tenants;
mod tls;
