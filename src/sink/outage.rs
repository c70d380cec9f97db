//! Whether a pool that is exhausted can open connections.
//!
//! Responsible for what attempts, acquires and looks have told of it during one exhaustion. Pure: it is
//! given the time. Not responsible for the attempts (`monitor::outage`), nor for when an exhaustion is
//! over (`episode`).

use std::time::Duration;

use crate::clock::Moment;

/// What is known of it. An exhaustion for which no connection can be opened is over when somebody was
/// granted one, or an attempt of ours came through. That nobody waits any more says nothing: who asks
/// next will fail.
#[derive(Debug)]
pub(crate) struct Outage {
    /// How many attempts of ours are under way.
    asking: u32,
    failed: Option<Failed>,
    /// When somebody last wanted a connection.
    wanted: Moment,
}

/// That no connection could be opened, and nobody was granted one since.
#[derive(Debug)]
struct Failed {
    at: Moment,
    /// Heard by an attempt of ours, and not from an acquire.
    is_ours: bool,
    /// The fewest idle connections since. One that comes back to the pool was tested.
    idle: Option<u32>,
}

/// What a look at a pool says of whether it gives connections out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Giving {
    /// Somebody waits.
    pub(crate) is_wanted: bool,
    pub(crate) idle: u32,
    /// When the youngest holder got its connection.
    pub(crate) granted: Option<Moment>,
}

impl Outage {
    /// Nothing is known, and somebody wants a connection.
    pub(super) fn unknown(now: Moment) -> Self {
        Self {
            asking: 0,
            failed: None,
            wanted: now,
        }
    }

    /// Whether there is none, as far as is known, and nobody asks.
    pub(super) fn is_settled(&self) -> bool {
        self.failed.is_none() && self.asking == 0
    }

    pub(super) fn is_wanted(&mut self, now: Moment) {
        self.wanted = now;
    }

    /// For how long nobody has wanted a connection.
    pub(super) fn unasked(&self, now: Moment) -> Duration {
        now.since(self.wanted)
    }

    /// An attempt to connect is under way.
    pub(crate) fn asks(&mut self) {
        self.asking += 1;
    }

    /// One has ended, or was dropped.
    pub(crate) fn asked(&mut self) {
        self.asking = self.asking.saturating_sub(1);
    }

    pub(crate) fn is_asking(&self) -> bool {
        self.asking > 0
    }

    /// No connection could be opened then, by an attempt of ours or by an acquire.
    pub(crate) fn cannot_connect(&mut self, at: Moment, is_ours: bool) {
        let idle = self.failed.take().and_then(|failed| failed.idle);
        self.failed = Some(Failed { at, is_ours, idle });
    }

    /// Connections can be opened. Whether that was not so before.
    pub(super) fn connects(&mut self) -> bool {
        self.failed.take().is_some()
    }

    /// Whether a look shows that somebody got a connection since none could be opened.
    pub(super) fn look(&mut self, giving: Giving, now: Moment) -> bool {
        if giving.is_wanted {
            self.wanted = now;
        }
        let Some(failed) = &mut self.failed else {
            return false;
        };
        let came_back = failed.idle.is_some_and(|idle| giving.idle > idle);
        let was_granted = giving.granted.is_some_and(|granted| granted > failed.at);
        let least = failed
            .idle
            .map_or(giving.idle, |idle| idle.min(giving.idle));
        failed.idle = Some(least);
        came_back || was_granted
    }

    /// Whether an attempt would tell more.
    pub(super) fn is_in_doubt(&self, is_quiet: bool) -> bool {
        let failed = self.failed.as_ref();
        failed.is_some_and(|failed| failed.is_ours || is_quiet)
    }
}
