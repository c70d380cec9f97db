//! Long runs: many cycles with random cuts, and HTTP clients that leave at random. Short in the
//! ordinary test run; `scripts/soak` sets their length by `LEAKTRACE_SOAK_CYCLES` and
//! `LEAKTRACE_SOAK_SECONDS`, and prints the figures that each of them says.

#[path = "../guarantee/stage.rs"]
#[macro_use]
#[allow(unused_macros, dead_code)]
mod stage;
#[path = "../support/mod.rs"]
mod support;

mod cycles;
mod hammer;

use std::io::Write;

/// A line for the table of `scripts/soak`: what ran, where, and what was seen, between bars.
fn figures(what: &str, on: support::Db, seen: &str) {
    // Not `eprintln!`: the test harness would swallow it when the test passes.
    let _ = writeln!(std::io::stderr(), "figures | {what} | {on} | {seen}");
}

/// The number in this environment variable, if it is set.
fn set(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
