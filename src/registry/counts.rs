//! How many are held and how many are on their way back.
//!
//! Responsible for one word that says both at once. Not responsible for who they are. Uses nothing
//! but `sync`, so that `models` can run it in every order there is.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Held and returning. A checkout that moves from the one to the other is never seen in both or in
/// neither.
#[derive(Default)]
pub(super) struct Counts(AtomicU64);

impl Counts {
    const HELD: u64 = 1 << 32;

    pub(super) fn take(&self) {
        self.0.fetch_add(Self::HELD, Ordering::AcqRel);
    }

    /// From held to returning.
    pub(super) fn release(&self) {
        self.0.fetch_sub(Self::HELD - 1, Ordering::AcqRel);
    }

    /// From returning to gone.
    pub(super) fn end(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Held, returning.
    pub(super) fn read(&self) -> (u32, u32) {
        let both = self.0.load(Ordering::Acquire);
        ((both >> 32) as u32, both as u32)
    }
}
