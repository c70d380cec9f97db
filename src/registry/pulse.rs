//! Whether a runtime runs what it is given.
//!
//! Responsible for one probe at a time for each pool, and for how late it is. Not responsible for
//! when to send one, or for what a late one means: see `monitor::stall`.

use crate::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::pool::PoolRecord;
use crate::clock::Moment;

/// A task that is sent to the runtime, to see that it runs.
#[derive(Default)]
pub(super) struct Probe {
    /// The one under way, with a flag that says when it ran.
    sent: Option<(Moment, Arc<AtomicBool>)>,
    /// When the latest that ran was sent.
    answered: Option<Moment>,
}

/// What probes say of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// It ran one not long ago.
    Runs,
    /// One is under way.
    Asked(Duration),
    /// One is under way for this long.
    Late(Duration),
}

impl Pulse {
    /// Above what a busy machine takes to schedule a task.
    pub(crate) const LATE: Duration = Duration::from_millis(750);
}

/// Says that the probe ran, also when the runtime drops it at its end.
struct Ran(Arc<AtomicBool>);

impl Drop for Ran {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl PoolRecord {
    /// Looks at the latest probe of the runtime, and sends the next one if that has run.
    /// An answer to a probe that was sent longer than `fresh` ago says nothing of now.
    pub(crate) fn probe(&self, now: Moment, fresh: Duration) -> Pulse {
        let Some(runtime) = self.runtime() else {
            return Pulse::Runs;
        };
        let mut probe = self.probe.lock();
        match &probe.sent {
            Some((sent, ran)) if ran.load(Ordering::Acquire) => {
                probe.answered = Some(*sent);
                probe.sent = None;
            }
            Some((sent, _)) if now.since(*sent) >= Pulse::LATE => {
                return Pulse::Late(now.since(*sent));
            }
            _ => {}
        }
        let asked_for = match &probe.sent {
            Some((sent, _)) => now.since(*sent),
            None => Duration::ZERO,
        };
        let is_fresh = probe.answered.is_some_and(|at| now.since(at) <= fresh);
        if probe.sent.is_none() {
            let ran = Arc::new(AtomicBool::new(false));
            probe.sent = Some((now, Arc::clone(&ran)));
            drop(probe);
            let ran = Ran(ran);
            // Not under the lock: a runtime that is gone drops the task here.
            runtime.spawn(async move { drop(ran) });
        }
        match is_fresh {
            true => Pulse::Runs,
            false => Pulse::Asked(asked_for),
        }
    }
}
