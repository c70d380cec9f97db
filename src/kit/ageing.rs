//! At which age a connection is replaced, each at a moment of its own.
//!
//! Responsible for the decision. Not responsible for asking: the pool's hooks do, as far as sqlx runs
//! them, and sqlx replaces the rest at the end of the lifetime.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Whether a connection of that age is replaced now.
///
/// sqlx tells hooks an age and no name. The moment of birth that follows from it tells connections
/// apart as well: each gets its own moment in the last part of the lifetime, so that those that were
/// opened together are not closed together.
pub(super) struct Ageing {
    lifetime: Duration,
    jitter: Duration,
    start: Instant,
    chance: RandomState,
}

impl Ageing {
    /// Replaces connections within the last `jitter` of their lifetime.
    pub(super) fn new(lifetime: Duration, jitter: Duration) -> Self {
        Self {
            lifetime,
            jitter,
            start: Instant::now(),
            chance: RandomState::new(),
        }
    }

    pub(super) fn is_over(&self, age: Duration) -> bool {
        if self.jitter.is_zero() || age < self.lifetime.saturating_sub(self.jitter) {
            return false;
        }
        // A hundredth of a second, so that the time between sqlx's look at the clock and ours makes
        // no difference.
        let born = Instant::now().checked_sub(age).unwrap_or(self.start);
        let born = born.saturating_duration_since(self.start);
        let place = self.chance.hash_one(born.as_millis() / 10) % 1_000;
        let part = Duration::from_secs_f64(self.jitter.as_secs_f64() * place as f64 / 1_000.0);
        age >= self.lifetime.saturating_sub(part)
    }
}
