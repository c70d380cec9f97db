//! Whether the runtime runs what it is given.
//!
//! Responsible for the sentence that heads a report when it does not: then no holder can go on, and
//! to blame one would mislead. Probes are sent only while something is overdue or waiting.

use std::time::Duration;

use super::Monitor;
use crate::clock::{Moment, span};
use crate::registry::PoolRecord;
use crate::site::text;

/// A probe that has not run for this long is late. Above what a busy machine takes to schedule.
const LATE: Duration = Duration::from_millis(750);

impl Monitor {
    /// Probes the runtime of this pool; answers what blocks it when it is late.
    pub(super) fn probe(&self, pool: &PoolRecord, now: Moment) -> Option<String> {
        let late = pool.probe(now);
        if late < LATE {
            return None;
        }
        let mut inside: Vec<(Duration, String)> = self
            .0
            .scopes
            .iter()
            .filter_map(|scope| {
                let since = now.since(scope.in_poll_since()?);
                let name = text::escape_text(scope.name(), 200).into_owned();
                (since * 2 > late).then_some((since, name))
            })
            .collect();
        inside.sort_by_key(|(since, _)| std::cmp::Reverse(*since));
        let mut sentence = format!("no worker ran our probe for {}", span(late));
        for (since, name) in inside.iter().take(3) {
            sentence += &format!(
                "; {name} has been inside one poll for {} (blocking call)",
                span(*since)
            );
        }
        Some(sentence)
    }
}
