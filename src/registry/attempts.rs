//! Our attempts to connect beside a pool.
//!
//! Responsible for one at a time, with a pause between them, and for when the last one was: what it
//! tells is of then. Not responsible for when one is worth making: see `monitor::outage`.

use std::time::Duration;

use super::pool::PoolRecord;
use crate::clock::Moment;
use crate::site::text;
use crate::sync::Mutex;

/// What came of one.
#[derive(Clone, Debug)]
pub(crate) struct Attempted {
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
    /// The server's own words when it failed.
    pub(crate) result: Result<(), String>,
}

#[derive(Default)]
pub(super) struct Attempts {
    /// Held while we try, and before that while we must not yet.
    turn: futures_util::lock::Mutex<()>,
    last: Mutex<Option<Attempted>>,
}

impl PoolRecord {
    /// The last attempt that has ended.
    pub(crate) fn last_attempt(&self) -> Option<Attempted> {
        self.attempts.last.lock().clone()
    }

    /// Tries to connect beside the pool, as soon as `pace` has passed since the last attempt began;
    /// no more when that one, or one that ends in the meantime, `suffices`. `counts`: somebody wants a
    /// connection, so that a failure is one of the pool's.
    pub(crate) async fn attempt(
        &self,
        pace: Duration,
        counts: bool,
        suffices: impl Fn(&Attempted) -> bool,
    ) -> Attempted {
        let _turn = self.attempts.turn.lock().await;
        if let Some(last) = self.last_attempt() {
            if suffices(&last) {
                return last;
            }
            let early = pace.saturating_sub(Moment::now().since(last.began));
            if !early.is_zero() {
                tokio::time::sleep(early).await;
            }
        }
        let began = Moment::now();
        let result = self.gauges.attempt().await;
        if result.is_err() && counts {
            self.tallies.could_not_connect();
        }
        let attempted = Attempted {
            began,
            ended: Moment::now(),
            result: result.map_err(|error| text::escape_text(&error, 300).into_owned()),
        };
        *self.attempts.last.lock() = Some(attempted.clone());
        attempted
    }
}
