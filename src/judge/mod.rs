//! What deserves to be said.
//!
//! Responsible for judgement alone: plain values in, claims out; no clock, no locks, no output, so
//! that every rule can be tested with plain instants. Not responsible for saying it once (`sink`).

mod deadlock;
mod holds;
mod remedy;
mod waits;
mod words;

pub(crate) use self::deadlock::{Stuck, stuck};
pub(crate) use self::holds::{Claim, due_in, holds};
pub(crate) use self::remedy::{BLOCKING, SAME_MOMENT, remedy, waits_itself};
pub(crate) use self::waits::{
    Connecting, Deadlock, Evidence, causes, suspects_connecting, without_a_cause,
};
pub(crate) use self::words::cut;
