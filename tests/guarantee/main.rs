//! The guarantee: nothing dirty reaches the next borrower, and nobody is told "committed" of data
//! that is not there. Each fact about sqlx 0.9 has a pair of tests: raw sqlx shows the defect (when
//! one of these fails, sqlx has changed), leaktrace does not.

#[path = "../support/mod.rs"]
mod support;

#[macro_use]
mod stage;

mod begin;
mod broken_wire;
mod commit;
mod drops;
mod faults;
mod findings;
mod guilty;
mod limits;
mod nested;
mod on_the_way;
mod restart;
mod scripts;
mod thread_locals;
