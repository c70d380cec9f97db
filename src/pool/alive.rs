//! Whether an idle connection is asked before it is given out, and which backend it has.
//!
//! Responsible for the alive bypass (the idea and the 500 ms are HikariCP's) and for knowing the
//! backend of a connection without asking again. Not responsible for the hooks around it.
//!
//! # How a connection is known again
//! sqlx gives a hook no name of the connection, but its age. A clock read before the poll of the
//! acquire and one in the hook enclose sqlx's own, so the two, less the age, enclose the moment at
//! which the connection was made: a span of microseconds, exact for certain. Connections are made
//! one round trip apart or more. Where two spans overlap all the same, the server is asked.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use sqlx::Error;

use crate::sync::Mutex;

/// A connection that is given out without a question.
///
/// Of no size: boxed, as sqlx's hooks want it, it allocates nothing.
pub(super) struct Alive;

impl Future for Alive {
    type Output = Result<bool, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(true))
    }
}

/// A connection was made within these two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made {
    from: Instant,
    /// `None`: not known yet.
    to: Option<Instant>,
}

impl Made {
    /// The span of a connection of that age, read between these two moments.
    pub(super) fn within(before: Instant, after: Instant, age: Duration) -> Option<Self> {
        Some(Self {
            from: before.checked_sub(age)?,
            to: Some(after.checked_sub(age)?),
        })
    }

    fn overlaps(self, other: Self) -> bool {
        self.to.is_none_or(|to| other.from <= to) && other.to.is_none_or(|to| self.from <= to)
    }

    /// What both say together.
    fn and(self, other: Self) -> Self {
        Self {
            from: self.from.max(other.from),
            to: match (self.to, other.to) {
                (Some(to), Some(other)) => Some(to.min(other)),
                (to, other) => to.or(other),
            },
        }
    }
}

/// The backends of the connections of one pool.
#[derive(Debug, Default)]
pub(super) struct Backends(Mutex<Vec<(i64, Made)>>);

impl Backends {
    /// More than any pool has connections.
    const MOST: usize = 4096;

    /// A connection is being made: it will be older than `from`. Forgets those that are older than
    /// any connection may get.
    pub(super) fn connected(&self, backend: i64, from: Instant, lifetime: Option<Duration>) {
        let mut known = self.0.lock();
        let oldest = lifetime.and_then(|lifetime| from.checked_sub(lifetime));
        known.retain(|(other, made)| {
            *other != backend && made.to.zip(oldest).is_none_or(|(to, oldest)| to >= oldest)
        });
        if known.len() >= Self::MOST {
            // Asked about again, each of them.
            known.clear();
        }
        known.push((backend, Made { from, to: None }));
    }

    /// The backend of the connection that was made then; `None` when it has to be asked.
    pub(super) fn of(&self, made: Made) -> Option<i64> {
        let mut known = self.0.lock();
        let mut fitting = known.iter_mut().filter(|(_, other)| other.overlaps(made));
        let (backend, other) = fitting.next()?;
        if fitting.next().is_some() {
            return None;
        }
        *other = other.and(made);
        Some(*backend)
    }

    /// The server was asked: the connection that was made then has this backend.
    pub(super) fn learned(&self, backend: i64, made: Made) {
        let mut known = self.0.lock();
        match known.iter_mut().find(|(other, _)| *other == backend) {
            Some((_, other)) if other.overlaps(made) => *other = other.and(made),
            // The name of another connection that is gone.
            Some((_, other)) => *other = made,
            None => known.push((backend, made)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    /// Made `at` after `start`, looked at when it is so old, with so much between the two reads.
    fn seen(start: Instant, at: Duration, age: Duration, width: Duration) -> Made {
        let now = start + at + age;
        Made::within(now - width, now + width, age).expect("not before the first moment")
    }

    #[test]
    fn a_connection_is_known_again_by_when_it_was_made() {
        let backends = Backends::default();
        let start = Instant::now() + Duration::from_secs(3600);
        for (backend, at) in [(1, 0), (2, 500), (3, 1_000)] {
            backends.connected(backend, start + MICRO * at, None);
        }
        let of = |at| seen(start, MICRO * at, Duration::from_secs(60), MICRO * 3);
        assert_eq!(
            backends.of(of(510)),
            None,
            "1 and 2 may have been made then"
        );
        for (backend, at) in [(1, 10), (2, 510), (3, 1_010)] {
            backends.learned(backend, of(at));
        }
        for (backend, at) in [(1, 10), (2, 510), (3, 1_010)] {
            assert_eq!(backends.of(of(at)), Some(backend));
        }
        assert_eq!(backends.of(of(700)), None, "nobody that is known");
    }

    #[test]
    fn where_two_may_be_meant_nobody_is() {
        let backends = Backends::default();
        let start = Instant::now() + Duration::from_secs(3600);
        let of = |at, width| seen(start, MICRO * at, Duration::from_secs(60), MICRO * width);
        backends.learned(1, of(10, 2));
        backends.learned(2, of(30, 2));
        assert_eq!(backends.of(of(12, 3)), Some(1));
        assert_eq!(
            backends.of(of(20, 50)),
            None,
            "the thread was stopped between two reads"
        );
    }

    #[test]
    fn what_is_older_than_any_connection_is_forgotten() {
        let backends = Backends::default();
        let start = Instant::now() + Duration::from_secs(3600);
        backends.learned(1, seen(start, MICRO, MICRO, MICRO));
        let lifetime = Some(Duration::from_secs(60));
        backends.connected(2, start + Duration::from_secs(61), lifetime);
        assert_eq!(backends.0.lock().len(), 1);
    }

    #[test]
    fn what_says_alive_has_no_size() {
        assert_eq!(size_of::<Alive>(), 0);
    }
}
