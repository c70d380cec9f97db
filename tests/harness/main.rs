//! Proof that the test support does what it says, on raw sqlx and without the crate under test.
//!
//! A test that passes because its proxy never stalled, or because its observer saw nothing, proves
//! nothing: so each control is shown here to act, next to the same program without it.

#[path = "../support/mod.rs"]
mod support;

mod captures;
mod databases;
mod doors;
mod networks;
mod observers;
