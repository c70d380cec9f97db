//! The walk that works wherever the `backtrace` crate does.
//!
//! Not responsible for speed: see `docs/performance.md` for what a walk costs.

/// Calls `keep` with each return address, innermost first, until it answers false.
pub(super) fn walk(mut keep: impl FnMut(usize) -> bool) {
    backtrace::trace(|frame| keep(frame.ip() as usize));
}
