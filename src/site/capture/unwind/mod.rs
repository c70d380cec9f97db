//! Stacks of the calling thread, in nanoseconds: memoised unwind rules, and templates of stacks that
//! were seen before.
//!
//! Responsible for return addresses and for recognising a stack; written as a crate of its own, that
//! knows nothing of what is captured, when or why. Not responsible for names, and not for a walk
//! where this one does not know the way: then it says so, and the caller walks by other means.
//!
//! # How
//! A *rule* says how to get from one frame to its caller: "the frame ends at the stack pointer plus
//! 48, the return address is the word below that". It is computed once for a return address from the
//! module's unwind tables ([`rule`]) and kept ([`table`]). A walk over known rules is an addition and
//! a load a frame ([`walk`]).
//!
//! Where the rules of a whole stack are known, every return address lies at a fixed distance from
//! the current stack pointer. A *template* is that list of distances and addresses, and what the
//! caller made of them ([`template`]). If all of the words are where it says, a walk would find
//! exactly these addresses, so that the stack need not be walked, hashed or kept again.
//!
//! # Safety
//! This module is the only one of the crate with `unsafe`. It rests on five invariants; each block
//! names those that it needs.
//!
//! - **I1, bounds.** A word is loaded from the stack only through [`thread::Stack::load`], which
//!   takes a distance from a stack pointer that was found to lie in the stack of this thread, and
//!   checks that the whole word lies below the stack's base. Everything from the stack pointer to the
//!   base is mapped and readable for as long as the function that read the stack pointer runs. So
//!   rules and templates decide *which* words are read and never *whether* that is allowed: a rule
//!   that is wrong, stale or made of noise gives wrong addresses, never a wrong access.
//! - **I2, no claim on what is read.** Those words are locals of functions under way. They are read
//!   by the processor, outside of Rust's memory model (inline assembly), and used as integers only.
//!   Nothing on the stack is ever written.
//! - **I3, tables.** Unwind tables are read only inside of the callback of `dl_iterate_phdr`, which
//!   holds the loader's lock, only within a segment that the loader has mapped, readable and not
//!   writable, and only of the module that holds an address of a frame under way, which may not be
//!   unloaded while it has a frame. No reference to a table leaves the callback.
//! - **I4, shared words.** What threads share are atomics: a rule is one word, so it cannot be torn;
//!   a template is many words behind a sequence number, so a torn one is noticed and, by I1, harmless
//!   before that.
//! - **I5, tokens.** What a template yields was stored as a `&'static T` in an atomic pointer of its
//!   own: each value that can be read from there is null or such a reference.
//!
//! # Unloading
//! After `dlclose`, rules and templates of the library are stale until the loader's counters are
//! compared: at each learned rule, and by [`Unwinder::refresh`]. Until then a library that was mapped
//! to the same addresses may be walked by a rule of the former one: by I1 that reads within the
//! stack, and yields addresses that may be wrong.

// The lint is `deny` everywhere else; `scripts/layers` looks for the word.
#![allow(unsafe_code)]

mod arch;
mod modules;
mod rule;
mod table;
mod template;
mod thread;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering};

use self::modules::Loader;
use self::rule::Rule;
use self::table::Rules;
use self::template::Templates;
use self::walk::Trail;

/// The most return addresses of one stack that are kept.
pub(super) const FRAMES: usize = walk::FRAMES;

/// Why there are no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// The stack pointer is not in the stack that this thread was started with: a coroutine, or a
    /// signal's own stack. Or the thread cannot say which that is.
    Elsewhere,
    /// A frame without a rule: an expression, a signal's frame, a module without unwind tables, code
    /// without a module.
    Frame,
}

/// Rules, templates, and what they were learned from. One for a process, in a `static`.
///
/// `T` is what the caller makes of a stack, once: a template remembers a reference to it.
pub(super) struct Unwinder<T: 'static> {
    rules: Rules,
    templates: Templates<T>,
    loader: Loader,
    /// Counts what makes templates invalid.
    generation: AtomicU32,
}

impl<T: Sync + 'static> Unwinder<T> {
    pub(super) const fn new() -> Self {
        Self {
            rules: Rules::new(),
            templates: Templates::new(),
            loader: Loader::new(),
            generation: AtomicU32::new(1),
        }
    }

    /// The stack of the caller, as what `keep` once made of it.
    ///
    /// `site` is any number that tells call sites apart: stacks of one site are looked up together,
    /// and a wrong number costs time only. `keep` gets the return addresses, innermost first, when
    /// this stack has no template; with `None` from it there will be none.
    ///
    /// # Errors
    /// [`Unknown`] when the walk does not know the way to the end of the stack.
    ///
    /// # Cost
    /// 0.6 ns a frame for a stack with a template; 7 ns a frame otherwise, and what `keep` costs; 1 to
    /// 2 µs once for a return address that was never seen. Allocates nothing, but for what the system
    /// does at the first call of a thread; locks nothing, but for the loader's lock at an address that
    /// was never seen.
    // Not inlined: its own frame is the first of the walk, and has to look alike each time.
    #[inline(never)]
    pub(super) fn capture(
        &self,
        site: usize,
        keep: impl FnOnce(&[usize]) -> Option<&'static T>,
    ) -> Result<Option<&'static T>, Unknown> {
        let from = thread::registers();
        let stack = thread::Stack::of(from).ok_or(Unknown::Elsewhere)?;
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(token) = self.templates.find(site, generation, from, &stack) {
            return Ok(Some(token));
        }
        self.capture_new(site, generation, from.pc, from.sp, from.fp, keep)
    }

    // On its own and with numbers only, so that a stack with a template stays in registers. Called
    // while the frame of these registers is still there.
    #[cold]
    #[inline(never)]
    fn capture_new(
        &self,
        site: usize,
        generation: u32,
        pc: usize,
        sp: usize,
        fp: usize,
        keep: impl FnOnce(&[usize]) -> Option<&'static T>,
    ) -> Result<Option<&'static T>, Unknown> {
        let from = thread::Registers { pc, sp, fp };
        let stack = thread::Stack::of(from).ok_or(Unknown::Elsewhere)?;
        let mut trail = Trail::new();
        self.walk(from, &stack, &mut trail)?;
        let token = keep(trail.addresses());
        if let Some(token) = token {
            self.templates
                .add(site, generation, from, &stack, &trail, token);
        }
        Ok(token)
    }

    /// Takes any template for the right one from now on: tests/capture must notice.
    #[cfg(test)]
    #[allow(dead_code)]
    pub(super) fn believe_templates(&self) {
        self.templates.unchecked.store(true, Ordering::Relaxed);
    }

    /// The return addresses of the caller, innermost first, without templates.
    ///
    /// # Errors
    /// As [`Unwinder::capture`].
    #[inline(never)]
    pub(super) fn addresses(&self, keep: impl FnOnce(&[usize])) -> Result<(), Unknown> {
        let from = thread::registers();
        let stack = thread::Stack::of(from).ok_or(Unknown::Elsewhere)?;
        let mut trail = Trail::new();
        self.walk(from, &stack, &mut trail)?;
        keep(trail.addresses());
        Ok(())
    }

    fn walk(
        &self,
        from: thread::Registers,
        stack: &thread::Stack,
        trail: &mut Trail,
    ) -> Result<(), Unknown> {
        let rule = |address| match self.rules.get(address) {
            Some(rule) => rule,
            None => self.learn(address, stack),
        };
        walk::walk::<arch::Native>(from, rule, |distance| stack.load(distance), trail)
            .map_err(|walk::Lost| Unknown::Frame)
    }

    #[cold]
    #[inline(never)]
    fn learn(&self, address: usize, stack: &thread::Stack) -> Rule {
        // Reading tables takes room, and a thread may have been started with very little.
        if stack.room() < modules::ROOM {
            return Rule::UNKNOWN;
        }
        let forget = || self.forget();
        let learned = |rule| self.rules.insert(address, rule);
        self.loader.learn(address, forget, learned)
    }

    /// Ends every walk from now on behind this return address: what called it tells nobody anything.
    /// Forgotten when a library is loaded or unloaded.
    pub(super) fn end_at(&self, address: usize) {
        self.loader.locked(|| {
            if self.rules.get(address) != Some(Rule::END) {
                self.rules.insert(address, Rule::END);
                // Templates of longer stacks would still be found.
                self.generation.fetch_add(1, Ordering::AcqRel);
            }
        });
    }

    /// Compares the loader's counters and forgets everything when a library came or went.
    /// About 0.1 µs, and the loader's lock.
    pub(super) fn refresh(&self) {
        self.loader.refresh(|| self.forget());
    }

    /// Called under the loader's lock, as every insertion of a module's rule is: none of a module that
    /// is gone can be inserted after this.
    fn forget(&self) {
        self.rules.clear();
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}
