//! The record of a checkout: how each door begins it, and how each way out ends it.

#[path = "../detection/ground.rs"]
mod ground;
#[path = "../support/mod.rs"]
mod support;

mod begins;
mod ends;
mod raw_pool;
mod statements;
mod watching;
