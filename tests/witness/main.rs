//! What the database server itself says of a holder, asked over a connection beside the pool: by real
//! servers, each case with an innocent twin.

#[path = "../support/mod.rs"]
mod support;

mod bench;

mod blockers;
mod deadlocks;
mod limits;
mod outages;
mod poolers;
mod privileges;
mod raw_loans;
mod stale;
