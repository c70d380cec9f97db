//! Twenty reports a minute, then a count.
//!
//! Responsible for the limit by minute that all findings share, and for when its count is due. Pure: it
//! is given the time. Not responsible for what is kept back.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;

/// What the limit by minute keeps back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Limited {
    /// How many groups, when it is time to say so.
    pub(crate) groups: Option<usize>,
    /// After how much time that may be said.
    pub(crate) next: Option<Duration>,
}

/// The reports of the last minute.
#[derive(Debug, Default)]
pub(super) struct Minute {
    /// When findings were let through.
    recent: VecDeque<Moment>,
    /// How many groups the last scan kept back because of the limit by minute, since when there are
    /// any, and when that was last said.
    left_out: usize,
    limited_since: Option<Moment>,
    limit_said: Option<Moment>,
}

impl Minute {
    /// The most reports a minute; further ones become a count.
    pub(super) const REPORTS: usize = 20;
    pub(super) const LENGTH: Duration = Duration::from_secs(60);
    /// Groups that become overdue within this time are counted together.
    const TOGETHER: Duration = Duration::from_secs(1);

    pub(super) fn has_room(&mut self, now: Moment) -> bool {
        while self
            .recent
            .front()
            .is_some_and(|first| now.since(*first) >= Self::LENGTH)
        {
            self.recent.pop_front();
        }
        self.recent.len() < Self::REPORTS
    }

    /// After how much time there is room again, where there is none.
    pub(super) fn room_in(&self, now: Moment) -> Duration {
        let first = self.recent.front().map_or(now, |first| *first);
        Self::LENGTH.saturating_sub(now.since(first))
    }

    /// Something was let through.
    pub(super) fn count(&mut self, now: Moment) {
        self.recent.push_back(now);
    }

    /// A scan begins: what it keeps back is counted anew.
    pub(super) fn begin(&mut self) {
        self.left_out = 0;
    }

    /// A group was kept back.
    pub(super) fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// How many groups are kept back now: said once a minute, and not before those that come together
    /// have come.
    pub(super) fn limited(&mut self, now: Moment) -> Limited {
        if self.left_out == 0 {
            self.limited_since = None;
            return Limited::default();
        }
        let since = *self.limited_since.get_or_insert(now);
        let due = self
            .limit_said
            .map_or(since, |said| said.after(Self::LENGTH))
            .max(since)
            .after(Self::TOGETHER);
        if due > now {
            return Limited {
                groups: None,
                next: Some(due.since(now)),
            };
        }
        self.limit_said = Some(now);
        Limited {
            groups: Some(self.left_out),
            next: None,
        }
    }
}
