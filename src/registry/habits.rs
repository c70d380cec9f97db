//! What its options made of a pool, beside what sqlx keeps.
//!
//! Responsible for keeping it, and for counting connections that leave because there are too many.
//! Not responsible for what is done about it: the pool's hooks and executors do that.

use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[derive(Default)]
pub(crate) struct Habits {
    /// Statements leave no name on the server.
    unprepared: AtomicBool,
    /// How many of the most connections are there for a while only.
    overflow: AtomicU32,
    /// How many are being closed because there are too many.
    leaving: AtomicU32,
}

impl Habits {
    pub(crate) fn set_unprepared(&self) {
        self.unprepared.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_unprepared(&self) -> bool {
        self.unprepared.load(Ordering::Relaxed)
    }

    pub(crate) fn set_overflow(&self, extra: u32) {
        self.overflow.store(extra, Ordering::Relaxed);
    }

    pub(crate) fn overflow(&self) -> u32 {
        self.overflow.load(Ordering::Relaxed)
    }

    /// Whether one of `size` connections, of which there may be `max`, is closed when it comes back.
    /// If so, [`left`](Self::left) says that it is done.
    pub(super) fn leaves(&self, size: u32, max: u32) -> bool {
        let extra = self.overflow();
        if extra == 0 {
            return false;
        }
        let leaving = self.leaving.fetch_add(1, Ordering::AcqRel);
        let is_one = size.saturating_sub(leaving) > max.saturating_sub(extra);
        if !is_one {
            self.left();
        }
        is_one
    }

    pub(crate) fn left(&self) {
        self.leaving.fetch_sub(1, Ordering::AcqRel);
    }
}
