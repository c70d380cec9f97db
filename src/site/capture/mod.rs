//! Walks the stack of the calling thread into addresses.
//!
//! Responsible for return addresses only; it knows nothing of pools, holders or names. The only
//! place in the crate where `unsafe` may be allowed. Not responsible for keeping stacks: `site`
//! interns them.

mod portable;

/// The most return addresses of one stack that are kept.
pub(super) const FRAMES: usize = 64;

/// Return addresses, innermost first.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    addresses: [usize; FRAMES],
    len: usize,
}

impl Addresses {
    pub(super) fn as_slice(&self) -> &[usize] {
        &self.addresses[..self.len]
    }

    fn push(&mut self, address: usize) -> bool {
        let Some(slot) = self.addresses.get_mut(self.len) else {
            return false;
        };
        *slot = address;
        self.len += 1;
        self.len < FRAMES
    }
}

/// Captures the stack of this thread, without naming anything.
pub(super) fn capture() -> Addresses {
    let mut stack = Addresses {
        addresses: [0; FRAMES],
        len: 0,
    };
    portable::walk(|address| stack.push(address));
    stack
}
