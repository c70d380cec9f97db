//! The way out for findings.
//!
//! Responsible for saying each thing once (`door`), on a thread of its own (`reporter`), to the
//! user's sinks and to the log (`voice`). Not responsible for what is found (`judge`).

mod door;
mod episode;
mod minute;
mod outage;
mod reporter;
mod voice;

pub(crate) use self::door::Door;
pub(crate) use self::episode::{End, Episodes, Over, Repeats, Stage};
pub(crate) use self::outage::Giving;
pub(crate) use self::reporter::Reporter;
pub(crate) use self::voice::Voice;
use crate::finding::Finding;

/// Receives every finding of a monitor.
///
/// Also any `Fn(&Finding)`. Called on the reporter's thread: one that blocks delays the sinks
/// behind it, one that panics is caught; neither stops detection.
///
/// ```
/// use leaktrace::{Config, Finding, Monitor};
///
/// let monitor = Monitor::new(Config::default());
/// monitor.add_sink(|finding: &Finding| eprintln!("{finding}"));
/// ```
pub trait FindingSink: Send + Sync {
    /// Takes one finding.
    fn finding(&self, finding: &Finding);
}

impl<F: Fn(&Finding) + Send + Sync> FindingSink for F {
    fn finding(&self, finding: &Finding) {
        self(finding);
    }
}
