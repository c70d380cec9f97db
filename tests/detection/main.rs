//! What is seen of a holder, and when something is said about it: a file per behaviour.

#[path = "../support/mod.rs"]
mod support;

mod ground;

mod crowds;
mod direct_calls;
mod idle;
mod matrix;
mod mixing;
mod stalled;
