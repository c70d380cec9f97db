//! The walk over known rules, and the trail it leaves for a template.
//!
//! Responsible for the order of steps, for ending, and for remembering what each address was derived
//! from. Not responsible for rules or for memory: both are handed in, and `unsafe` is nowhere here.

use super::arch::Arch;
use super::rule::Rule;
use super::thread::Registers;

pub(super) const FRAMES: usize = 64;

/// A frame without a rule, or a word outside of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

/// Where the frame pointer that a frame is measured from was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FpSource {
    /// In the register, at the start.
    Register,
    /// In the word at that distance from the first stack pointer.
    Saved(usize),
}

/// A walk: every word that decided about it.
pub(super) struct Trail {
    addresses: [usize; FRAMES],
    /// Where each address was found, as a distance from the first stack pointer.
    distances: [usize; FRAMES],
    len: usize,
    /// Each frame pointer that was used, and its distance from the first stack pointer.
    fps: [(FpSource, usize); FRAMES],
    fps_len: usize,
}

impl Trail {
    pub(super) fn new() -> Self {
        Self {
            addresses: [0; FRAMES],
            distances: [0; FRAMES],
            len: 0,
            fps: [(FpSource::Register, 0); FRAMES],
            fps_len: 0,
        }
    }

    /// Innermost first.
    pub(super) fn addresses(&self) -> &[usize] {
        &self.addresses[..self.len]
    }

    pub(super) fn distances(&self) -> &[usize] {
        &self.distances[..self.len]
    }

    pub(super) fn fps(&self) -> &[(FpSource, usize)] {
        &self.fps[..self.fps_len]
    }
}

/// Walks from `from` to the end of the stack, or until the trail is full.
///
/// `rule` knows the rule of a return address, `load` the word at a distance from the first stack
/// pointer. Every step goes up the stack, so that the walk ends.
pub(super) fn walk<A: Arch>(
    from: Registers,
    rule: impl Fn(usize) -> Rule,
    load: impl Fn(usize) -> Option<usize>,
    trail: &mut Trail,
) -> Result<(), Lost> {
    let mut pc = A::strip(from.pc);
    // As distances from the first stack pointer; the frame pointer may lie anywhere, even below.
    let mut sp = 0usize;
    let mut fp = from.fp.wrapping_sub(from.sp);
    let mut fp_source = FpSource::Register;
    loop {
        let rule = rule(pc);
        if !rule.is_frame() {
            return if rule == Rule::END { Ok(()) } else { Err(Lost) };
        }
        let end = if rule.is_from_fp() {
            // At most one a frame, and there are no more frames than that.
            if let Some(slot) = trail.fps.get_mut(trail.fps_len) {
                *slot = (fp_source, fp);
                trail.fps_len += 1;
            }
            fp.wrapping_add(rule.size())
        } else {
            sp + rule.size()
        };
        // The return address was pushed after the stack pointer of this frame's caller was set.
        if end <= sp || !end.is_multiple_of(8) {
            return Err(Lost);
        }
        let at = end.checked_sub(rule.return_address()).ok_or(Lost)?;
        pc = A::strip(load(at).ok_or(Lost)?);
        if rule.saved_fp() != 0 {
            let saved = end.checked_sub(rule.saved_fp()).ok_or(Lost)?;
            fp = load(saved).ok_or(Lost)?.wrapping_sub(from.sp);
            fp_source = FpSource::Saved(saved);
        }
        sp = end;
        trail.addresses[trail.len] = pc;
        trail.distances[trail.len] = at;
        trail.len += 1;
        if trail.len == FRAMES {
            return Ok(());
        }
    }
}
