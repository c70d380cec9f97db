//! What is seen of a holder, and when something is said about it: a file per behaviour.

#[path = "../support/mod.rs"]
mod support;

mod ground;

mod direct_calls;
mod matrix;
