//! Waiting for a condition instead of sleeping.
//!
//! Responsible for polling with growing pauses and for a failure text that says what was awaited and
//! what was last seen. The limit is real time, also when tokio's time is paused.

use std::fmt::Debug;
use std::panic::Location;
use std::time::{Duration, Instant};

/// What a condition can answer: "yes, this", or "not yet", with or without a reason.
pub(crate) trait Answer {
    type Yes;
    fn decide(self) -> Result<Self::Yes, String>;
}

impl Answer for bool {
    type Yes = ();
    fn decide(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".into()) }
    }
}

impl<T> Answer for Option<T> {
    type Yes = T;
    fn decide(self) -> Result<T, String> {
        self.ok_or_else(|| "None".into())
    }
}

impl<T, E: Debug> Answer for Result<T, E> {
    type Yes = T;
    fn decide(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Asks `condition` until it answers yes; panics when it did not `within` that time.
///
/// Answer `Err(what was seen)` instead of `false` or `None` to get it into the failure text.
#[track_caller]
pub(crate) fn eventually<A, F>(
    what: &str,
    within: Duration,
    mut condition: F,
) -> impl Future<Output = A::Yes>
where
    A: Answer,
    F: AsyncFnMut() -> A,
{
    let caller = Location::caller();
    async move {
        let start = Instant::now();
        let mut pauses = Pauses::default();
        loop {
            match condition().await.decide() {
                Ok(yes) => return yes,
                Err(seen) if start.elapsed() >= within => {
                    panic!("not within {within:?}: {what} (last seen: {seen}; asked at {caller})")
                }
                Err(_) => tokio::time::sleep(pauses.next()).await,
            }
        }
    }
}

/// [`eventually`] for code outside of a runtime.
#[track_caller]
pub(crate) fn eventually_blocking<A: Answer>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> A,
) -> A::Yes {
    let start = Instant::now();
    let mut pauses = Pauses::default();
    loop {
        match condition().decide() {
            Ok(yes) => return yes,
            Err(seen) if start.elapsed() >= within => {
                panic!("not within {within:?}: {what} (last seen: {seen})")
            }
            Err(_) => std::thread::sleep(pauses.next()),
        }
    }
}

/// 1 ms, growing by half to 100 ms: quick when the answer is near, cheap when it is not.
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(Duration::from_millis(1))
    }
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 3 / 2).min(Duration::from_millis(100));
        now
    }
}
