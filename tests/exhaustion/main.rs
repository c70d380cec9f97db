//! Why a pool has nothing to give: each cause by a real program, each with an innocent twin, and when
//! and how often that is said.

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod connecting;
mod deadlock;
mod flapping;
mod nested;
mod outage;
mod overdue;
mod phases;
mod returning;
mod saturated;
mod stalled;
mod stranded;
mod strict;
mod untracked;
mod waiters;
