//! Stacks: taken as addresses, kept once, named when somebody reads them.
//!
//! Responsible for interning, and for what readers get. Not responsible for walking (`capture`) or for
//! names (`names`).

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::ptr;
use std::sync::{LazyLock, OnceLock};

use dashmap::DashMap;

use super::capture::Captures;
use super::names::name;
use super::symbols::{Reader, Unnamed};
use super::{CallSite, Location};
use crate::config::Unwinder;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The stack of a checkout.
///
/// Cheap to clone. Holds addresses until somebody asks for names. Each distinct stack is kept once,
/// for the life of the process.
#[derive(Clone)]
pub struct Stack(&'static Inner);

struct Inner {
    addresses: Box<[usize]>,
    frames: OnceLock<Box<[Frame]>>,
}

/// One frame of a [`Stack`] that belongs to the user's code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct Frame {
    pub(super) function: String,
    pub(super) location: Option<Location>,
}

impl Frame {
    /// The function, without the compiler's additions.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// Where in the source; `None` in a build without line tables.
    pub fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }
}

impl Stack {
    /// The frames of the user's own code, innermost first.
    ///
    /// Frames of the runtime, of sqlx, of web frameworks and of this crate are left out, and
    /// everything below the runtime's task.
    ///
    /// Empty where there is not the memory to read names, or nothing to read them from: then the text
    /// of the stack has its addresses, and the command that names them elsewhere.
    ///
    /// # Cost
    /// The first call for a stack reads debug information of the program: milliseconds, with line
    /// tables up to 100 ms and 60 MiB, which are given back. Not for a request's path.
    pub fn frames(&self) -> &[Frame] {
        self.read().unwrap_or_default()
    }

    fn read(&self) -> Result<&[Frame], Unnamed> {
        if let Some(frames) = self.named() {
            return Ok(frames);
        }
        let named = name(&self.0.addresses, &Reader::new())?;
        if let Some(bottom) = named.bottom {
            CAPTURES.end_at(bottom);
        }
        Ok(self.0.frames.get_or_init(|| named.frames))
    }

    /// Whether it names anything besides that line. Names the frames.
    pub(crate) fn says_more_than(&self, line: Option<&Location>) -> bool {
        let is_line = |frame: &Frame| match (&frame.location, line) {
            (Some(frame), Some(line)) => frame.file() == line.file() && frame.line() == line.line(),
            _ => false,
        };
        match self.read() {
            Ok(frames) => !frames.iter().all(is_line),
            Err(_) => true,
        }
    }

    /// The frames, if somebody has asked for them before.
    pub(crate) fn named(&self) -> Option<&[Frame]> {
        self.0.frames.get().map(|frames| &**frames)
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("addresses", &self.0.addresses.len())
            .field("frames", &self.named())
            .finish()
    }
}

impl fmt::Display for Stack {
    /// One line, innermost first: `orders::repo::reserve ‹ orders::service::ship`. Without names, its
    /// addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let frames = match self.read() {
            Ok(frames) => frames,
            Err(unnamed) => return unnamed.fmt(f),
        };
        for (index, frame) in frames.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str(" ‹ ")?;
            }
            match &frame.location {
                // A build with line tables only has no better name for an async function.
                Some(location) if frame.function.starts_with('{') => {
                    f.write_str(&location.short())?;
                }
                _ => f.write_str(&frame.function)?,
            }
        }
        if frames.len() > SHOWN {
            write!(f, " ‹ … {} more", frames.len() - SHOWN)?;
        }
        Ok(())
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for Stack {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.read() {
            Ok(frames) => serializer.collect_seq(frames),
            Err(unnamed) => serializer.collect_seq([Frame {
                function: unnamed.to_string(),
                location: None,
            }]),
        }
    }
}

/// Captures the stacks of one monitor, and counts those that were not kept.
pub(crate) struct Stacks {
    portable: bool,
    dropped: AtomicU64,
}

/// One for the process, whatever the number of monitors: the same code has the same stacks.
static CAPTURES: Captures<Inner> = Captures::new();
static KEPT: LazyLock<Kept> = LazyLock::new(Kept::new);

impl Stacks {
    pub(crate) fn new(unwinder: Unwinder) -> Self {
        Self {
            portable: unwinder == Unwinder::Portable,
            dropped: AtomicU64::new(0),
        }
    }

    /// Captures the stack of this thread; `None` when there is no room for another distinct one.
    /// `by` may be any call site near: a capture from the same one is found faster.
    pub(crate) fn capture(&self, by: Option<CallSite>) -> Option<Stack> {
        let fast = !self.portable;
        let site = by.map_or(0, |site| ptr::from_ref(site.0).addr());
        let kept = CAPTURES.capture(fast, site, |addresses| KEPT.intern(addresses));
        if kept.is_none() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        kept.map(Stack)
    }

    /// Does the work of a first capture, so that no request has to: 0.1 ms to 1 ms.
    pub(crate) fn prepare(&self) {
        LazyLock::force(&KEPT);
        if !self.portable {
            CAPTURES.prepare();
        }
    }

    /// Notices libraries that were loaded or unloaded. From time to time, from a thread of our own.
    pub(crate) fn refresh(&self) {
        if !self.portable {
            CAPTURES.refresh();
        }
    }

    /// How many checkouts went without a stack because there was no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Every distinct stack, once.
struct Kept {
    by_hash: DashMap<u64, &'static Inner>,
    hasher: RandomState,
}

impl Kept {
    /// The most distinct stacks that are kept; a service has hundreds.
    const MOST: usize = 4096;

    fn new() -> Self {
        Self {
            by_hash: DashMap::new(),
            hasher: RandomState::new(),
        }
    }

    fn intern(&self, addresses: &[usize]) -> Option<&'static Inner> {
        // The slow walk ends some stacks with the address that stands for "nobody called".
        let addresses = match addresses {
            [addresses @ .., 0] => addresses,
            addresses => addresses,
        };
        let hash = self.hasher.hash_one(addresses);
        if let Some(known) = self.by_hash.get(&hash)
            && *known.addresses == *addresses
        {
            return Some(*known);
        }
        if self.by_hash.len() >= Self::MOST {
            return None;
        }
        // Never freed: a template may name it at any time, and there is a bound.
        let stack: &'static Inner = Box::leak(Box::new(Inner {
            addresses: addresses.into(),
            frames: OnceLock::new(),
        }));
        self.by_hash.insert(hash, stack);
        Some(stack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_place_is_one_stack_and_another_place_is_another() {
        for unwinder in [Unwinder::Auto, Unwinder::Portable] {
            let stacks = Stacks::new(unwinder);
            let mut taken = Vec::new();
            for _ in 0..2 {
                taken.extend(stacks.capture(None));
            }
            taken.extend(stacks.capture(None));
            assert!(ptr::eq(taken[0].0, taken[1].0));
            assert!(!ptr::eq(taken[0].0, taken[2].0));
        }
    }
}
