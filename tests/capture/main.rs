//! The fast walk of the stack finds what the system's unwinder finds.
//!
//! Responsible for `src/site/capture/unwind`, which is compiled into this test as the crate of its own
//! that it is written as: what it yields is compared with `_Unwind_Backtrace`, address by address.
//! Not responsible for reports: tests/reports and tests/layer read those.
//!
//! `LEAKTRACE_SOAK=N` multiplies the number of captures by N, for a long run.

#![cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(miri)
))]

#[allow(dead_code)] // What only the crate needs.
#[path = "../../src/site/capture/unwind/mod.rs"]
mod unwind;

mod callers;
mod checkouts;
mod compare;
mod foreign;
mod libraries;
mod soak;
