//! What would be said, without saying it.
//!
//! Responsible for telling beforehand whether evidence for a claim is worth collecting.

use std::time::Duration;

use super::Door;
use crate::clock::Moment;
use crate::finding::Kind;
use crate::judge::Claim;
use crate::registry::Holder;
use crate::report::GroupKey;

impl Door {
    /// Whether this was not said of its holder yet.
    pub(crate) fn is_news(&self, claim: &Claim) -> bool {
        let told = self.told.get(&claim.holder);
        told.is_none_or(|told| told.milestone < claim.milestone)
    }

    /// Whether its group has spoken within the interval, so that it may not speak again yet.
    pub(crate) fn has_spoken_of(&self, holder: &Holder, interval: Duration, now: Moment) -> bool {
        let group = GroupKey::of(holder);
        [
            Kind::HeldTooLong,
            Kind::IdleInTransaction,
            Kind::OutlivedRequest,
        ]
        .into_iter()
        .any(|kind| {
            let spoke = self.spoke.get(&(group.clone(), kind));
            spoke.is_some_and(|spoke| now.since(*spoke) < interval)
        })
    }

    /// Whether the limit by minute lets another one through.
    pub(crate) fn has_room(&mut self, now: Moment) -> bool {
        self.minute.has_room(now)
    }
}
