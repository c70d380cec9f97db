//! The thread that looks.
//!
//! Responsible for waking up at the right time, also when no runtime works, and for noticing that
//! the whole process stood still. Not responsible for what is looked at: the monitor hands in the
//! scan.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::clock::Moment;
use crate::sync::atomic::{AtomicBool, Ordering};

/// What the thread and its owner share.
///
/// # Invariant
/// Whoever makes work visible (a holder, a waiter) then calls [`Watchdog::wake`]. The thread clears
/// `armed` *before* it looks for work a last time, so one of the two sees the other.
pub(crate) struct Watchdog {
    /// The thread is awake or will wake by itself.
    armed: AtomicBool,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

/// A span in which the process stood still, found by a wake-up that came too late.
pub(crate) type Stop = (Moment, Moment);

/// What the scan wants next.
pub(crate) enum Next {
    /// Look again after this time.
    Scan(Duration),
    /// Nothing is out: sleep until woken.
    Rest,
    /// The monitor is gone.
    End,
}

impl Watchdog {
    /// The longest sleep while anything is out. Bounds what a stop of the process can hide: a stop
    /// is found by a wake-up that comes late.
    pub(crate) const LONGEST: Duration = Duration::from_millis(500);
    /// The shortest: also the precision of a deadline.
    const SHORTEST: Duration = Duration::from_millis(2);
    /// A wake-up later than this means that the process did not run.
    const LATE: Duration = Duration::from_millis(250);
    /// One later than this means that it was stopped: a busy machine is not that late.
    const STOPPED: Duration = Duration::from_secs(2);

    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            armed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
        })
    }

    /// Starts the thread. `scan` is given the stop that was found, if any.
    ///
    /// # Errors
    /// When the system gives no thread: then nothing is reported by age.
    pub(crate) fn start(
        self: &Arc<Self>,
        scan: impl FnMut(Option<Stop>) -> Next + Send + 'static,
    ) -> std::io::Result<()> {
        let shared = Arc::clone(self);
        let handle = thread::Builder::new()
            .name("leaktrace-watchdog".into())
            .spawn(move || shared.run(scan))?;
        let _ = self.thread.set(handle.thread().clone());
        self.armed.store(false, Ordering::SeqCst);
        self.wake();
        Ok(())
    }

    /// Makes sure that the thread looks before long.
    ///
    /// # Cost
    /// One load while something else is out anyway.
    pub(crate) fn wake(&self) {
        if !self.armed.load(Ordering::SeqCst) && !self.armed.swap(true, Ordering::SeqCst) {
            self.unpark();
        }
    }

    /// Makes the thread look now.
    pub(crate) fn wake_now(&self) {
        self.armed.store(true, Ordering::SeqCst);
        self.unpark();
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.unpark();
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn run(&self, mut scan: impl FnMut(Option<Stop>) -> Next) {
        let mut stop = None;
        // A mistake of ours in one pass must not end detection.
        let mut scan = |stop| {
            catch_unwind(AssertUnwindSafe(|| scan(stop))).unwrap_or(Next::Scan(Self::LONGEST))
        };
        while !self.stopped.load(Ordering::SeqCst) {
            match scan(stop.take()) {
                Next::End => return,
                Next::Scan(time) => {
                    self.armed.store(true, Ordering::SeqCst);
                    let time = time.clamp(Self::SHORTEST, Self::LONGEST);
                    let parked = Moment::now();
                    thread::park_timeout(time);
                    stop = stood_still(parked, time, Moment::now());
                }
                Next::Rest => {
                    self.armed.store(false, Ordering::SeqCst);
                    // Work that came between the scan and this line did not wake anybody.
                    match scan(None) {
                        Next::End => return,
                        Next::Rest if !self.stopped.load(Ordering::SeqCst) => thread::park(),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// The span in which the process stood still, if it did, while the thread was parked for `time`.
///
/// When it began is not known. After a long stop the answer is the safe one, the moment of parking:
/// a holder that became overdue on paper while nothing ran is not to be blamed. After a short one
/// it is the moment when the thread should have woken up: on a machine that is always late, the
/// other answer would subtract all time there is.
fn stood_still(parked: Moment, time: Duration, now: Moment) -> Option<Stop> {
    let due = parked.after(time);
    let late = now.since(due);
    if late > Watchdog::STOPPED {
        Some((parked, now))
    } else if late > Watchdog::LATE {
        Some((due, now))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_resting_watchdog_looks_when_woken_and_ends_when_stopped() {
        let watchdog = Watchdog::new();
        let (looked, looks) = channel();
        watchdog
            .start(move |_| {
                looked.send(()).expect("the test listens");
                Next::Rest
            })
            .expect("a thread");
        let patience = Duration::from_secs(20);
        looks.recv_timeout(patience).expect("the first look");
        while looks.try_recv().is_ok() {}
        watchdog.wake_now();
        looks.recv_timeout(patience).expect("a look after a wake");
        watchdog.stop();
        while looks.recv_timeout(patience).is_ok() {}
    }

    #[test]
    fn a_long_stop_began_with_the_sleep_and_a_short_one_at_its_end() {
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000).expect("not zero");
        let slept = Duration::from_millis(400);
        let stop = |woken| stood_still(at(1000), slept, at(woken));
        assert_eq!(stop(1300), None, "woken early");
        assert_eq!(stop(1400 + 250), None, "a little late");
        assert_eq!(stop(1400 + 251), Some((at(1400), at(1651))));
        assert_eq!(stop(1400 + 2000), Some((at(1400), at(3400))));
        assert_eq!(stop(1400 + 2001), Some((at(1000), at(3401))));
    }

    #[test]
    fn a_panic_in_a_pass_does_not_end_it() {
        let watchdog = Watchdog::new();
        let (looked, looks) = channel();
        let mut passes = 0;
        watchdog
            .start(move |_| {
                passes += 1;
                looked.send(()).expect("the test listens");
                assert!(passes > 1, "the first pass panics");
                Next::Rest
            })
            .expect("a thread");
        for _ in 0..2 {
            looks
                .recv_timeout(Duration::from_secs(20))
                .expect("another look");
        }
        watchdog.stop();
    }

    #[test]
    fn it_ends_with_its_monitor() {
        let watchdog = Watchdog::new();
        let (looked, looks) = channel::<()>();
        watchdog
            .start(move |_| {
                let _ = &looked;
                Next::End
            })
            .expect("a thread");
        assert!(
            looks.recv_timeout(Duration::from_secs(20)).is_err(),
            "the scan was dropped"
        );
    }
}
