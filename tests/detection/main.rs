//! What is seen of a holder, and when something is said about it: a file per behaviour.

#[path = "../support/mod.rs"]
mod support;

mod ground;

mod child;
mod closing;
mod crowds;
mod details;
mod direct_calls;
mod idle;
mod listeners;
mod matrix;
mod milestones;
mod mixing;
mod sinks;
mod stalled;
mod stopped;
mod thresholds;
mod watchdog;
