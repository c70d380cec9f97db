//! At which age a connection is replaced, each at a moment of its own.
//!
//! Responsible for the decision. Not responsible for asking: the pool's hooks do, as far as sqlx runs
//! them, and sqlx replaces the rest at the end of the lifetime.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether a connection of that age is replaced now.
///
/// sqlx tells hooks an age and no name. The moment of birth that follows from it tells connections
/// apart as well: each gets its own moment in the last part of the lifetime, so that those that were
/// opened together are not closed together.
pub(super) struct Ageing {
    lifetime: Duration,
    jitter: Duration,
    chance: RandomState,
    /// When connections were opened, and at which age each is replaced; oldest first.
    births: Mutex<Vec<(Instant, Duration)>>,
}

/// From sqlx's look at the clock to ours, on a machine that is busy: by so much a connection looks
/// younger than it is.
const LATE: Duration = Duration::from_secs(1);
/// More than any pool has connections.
const MOST: usize = 1 << 14;

impl Ageing {
    /// Replaces connections within the last `jitter` of their lifetime.
    pub(super) fn new(lifetime: Duration, jitter: Duration) -> Self {
        Self {
            lifetime,
            jitter,
            chance: RandomState::new(),
            births: Mutex::default(),
        }
    }

    /// A connection was opened just now.
    pub(super) fn born(&self, now: Instant) {
        if !self.jitter.is_zero() {
            self.draw(&mut self.births(), now, now);
        }
    }

    pub(super) fn is_over(&self, now: Instant, age: Duration) -> bool {
        if self.jitter.is_zero() || age < self.lifetime.saturating_sub(self.jitter) {
            return false;
        }
        now.checked_sub(age)
            .is_some_and(|born| age >= self.age_of(born, now))
    }

    /// At which age the connection is replaced that was born then, or a little before.
    fn age_of(&self, born: Instant, now: Instant) -> Duration {
        let mut births = self.births();
        let until = births.partition_point(|(at, _)| *at <= born);
        match births[..until].last() {
            Some((at, age)) if born.saturating_duration_since(*at) < LATE => *age,
            _ => self.draw(&mut births, born, now),
        }
    }

    /// Draws it once, to be kept: a moment that was drawn anew at each look would mostly be an early one.
    fn draw(&self, births: &mut Vec<(Instant, Duration)>, born: Instant, now: Instant) -> Duration {
        let until = births.partition_point(|(at, _)| *at <= born);
        let place = self.chance.hash_one((born, until)) % 1_000;
        let part = self.jitter.mul_f64(place as f64 / 1_000.0);
        let age = self.lifetime.saturating_sub(part);
        births.insert(until, (born, age));
        births.retain(|(at, _)| now.saturating_duration_since(*at) < self.lifetime + LATE);
        if births.len() > MOST {
            births.remove(0);
        }
        age
    }

    fn births(&self) -> MutexGuard<'_, Vec<(Instant, Duration)>> {
        self.births.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(100);
    const MILLI: Duration = Duration::from_millis(1);

    /// At which age the connection that was born then is replaced, looked at each 100 ms, each look
    /// late by up to `late`.
    fn replaced_at(ageing: &Ageing, born: Instant, late: Duration) -> Duration {
        let mut looks = (0..2_000_u32).map(|look| {
            let delay = late.mul_f64(f64::from(look * 7 % 10) / 10.0);
            let age = MILLI * 100 * look;
            (ageing.is_over(born + age + delay, age), age)
        });
        looks.find(|(is_over, _)| *is_over).expect("its end").1
    }

    #[test]
    fn each_has_a_moment_of_its_own_that_does_not_change_with_the_looks() {
        let ageing = Ageing::new(LIFETIME, LIFETIME / 2);
        let start = Instant::now();
        let births: Vec<_> = (0..20).map(|at| start + MILLI * 50 * at).collect();
        for born in &births {
            ageing.born(*born);
        }
        let exact: Vec<_> = births
            .iter()
            .map(|born| replaced_at(&ageing, *born, Duration::ZERO))
            .collect();
        let late: Vec<_> = births
            .iter()
            .map(|born| replaced_at(&ageing, *born, MILLI * 40))
            .collect();
        assert_eq!(exact, late);
        assert!(
            exact
                .iter()
                .all(|age| *age > LIFETIME / 2 && *age <= LIFETIME)
        );
        let mut distinct = exact.clone();
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 10, "{exact:?}");
    }

    #[test]
    fn one_that_nobody_announced_keeps_its_moment_too() {
        let ageing = Ageing::new(LIFETIME, LIFETIME);
        let born = Instant::now();
        assert!(!ageing.is_over(born + MILLI, MILLI));
        let first = replaced_at(&ageing, born, MILLI * 40);
        assert_eq!(first, replaced_at(&ageing, born, MILLI * 40));
    }

    #[test]
    fn without_jitter_nobody_is_replaced_before_sqlx_does_it() {
        let ageing = Ageing::new(LIFETIME, Duration::ZERO);
        let now = Instant::now() + LIFETIME * 2;
        assert!(!ageing.is_over(now, LIFETIME * 2));
    }

    #[test]
    fn those_that_are_gone_for_long_are_forgotten() {
        let ageing = Ageing::new(LIFETIME, LIFETIME);
        let start = Instant::now();
        for at in 0..1_000 {
            ageing.born(start + LIFETIME * at);
        }
        assert!(ageing.births.lock().expect("births").len() <= 2);
    }
}
