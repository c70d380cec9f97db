//! The modules of the process: which one holds an address, where its unwind tables are, and whether
//! one came or went.
//!
//! Responsible for I3 of the parent's invariants: everything happens in a callback of the loader.

use std::ffi::{c_int, c_void};
use std::mem;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arch::Native;
use super::rule::{self, Bytes, Rule};

/// The stack that reading tables may take, with as much again to spare: a thread needed less than 28 KiB
/// in a build without optimisation, and less than 16 KiB in one with.
pub(super) const ROOM: usize = 48 << 10;

/// What the loader said when it was last asked: how many modules it ever added, and removed.
pub(super) struct Loader {
    adds: AtomicU64,
    subs: AtomicU64,
}

impl Loader {
    pub(super) const fn new() -> Self {
        Self {
            adds: AtomicU64::new(0),
            subs: AtomicU64::new(0),
        }
    }

    /// Computes the rule of a return address and hands it to `learned`, under the loader's lock unless
    /// no module has it; calls `forget` before, if a module came or went since the last time.
    pub(super) fn learn(
        &self,
        address: usize,
        forget: impl FnOnce(),
        learned: impl FnOnce(Rule),
    ) -> Rule {
        let mut rule = Rule::UNKNOWN;
        let mut forget = Some(forget);
        let mut learned = Some(learned);
        each_module(&mut |module| {
            if let Some(forget) = forget.take() {
                self.compare(module, forget);
            }
            let holds = module.holds(address);
            if holds {
                rule = module.rule(address);
                if let Some(learned) = learned.take() {
                    learned(rule);
                }
            }
            !holds
        });
        if let Some(learned) = learned {
            // Code without a module. A module that is loaded there later is noticed as any other.
            learned(rule);
        }
        rule
    }

    /// Calls `forget` if a module came or went since the last time.
    pub(super) fn refresh(&self, forget: impl FnOnce()) {
        let mut forget = Some(forget);
        each_module(&mut |module| {
            if let Some(forget) = forget.take() {
                self.compare(module, forget);
            }
            false
        });
    }

    /// Runs `act` under the loader's lock.
    pub(super) fn locked(&self, act: impl FnOnce()) {
        let mut act = Some(act);
        each_module(&mut |_| {
            if let Some(act) = act.take() {
                act();
            }
            false
        });
    }

    fn compare(&self, module: &Module<'_>, forget: impl FnOnce()) {
        // Only ever written under the loader's lock.
        let now = (module.adds, module.subs);
        let before = (
            self.adds.load(Ordering::Relaxed),
            self.subs.load(Ordering::Relaxed),
        );
        if now != before {
            self.adds.store(now.0, Ordering::Relaxed);
            self.subs.store(now.1, Ordering::Relaxed);
            if before != (0, 0) {
                forget();
            }
        }
    }
}

/// One module, while the loader's lock is held.
struct Module<'a> {
    base: usize,
    headers: &'a [libc::Elf64_Phdr],
    adds: u64,
    subs: u64,
}

impl<'a> Module<'a> {
    /// The mapped part of a segment that comes from the file: from and to.
    fn span(&self, header: &libc::Elf64_Phdr) -> Option<(usize, usize)> {
        let from = self.base.checked_add(header.p_vaddr as usize)?;
        Some((from, from.checked_add(header.p_filesz as usize)?))
    }

    fn segment(&self, address: usize) -> Option<&libc::Elf64_Phdr> {
        self.headers.iter().find(|header| {
            header.p_type == libc::PT_LOAD
                && self
                    .span(header)
                    .is_some_and(|(from, to)| (from..to).contains(&address))
        })
    }

    fn holds(&self, address: usize) -> bool {
        self.segment(address).is_some()
    }

    /// The bytes of the segment that holds the address, when they cannot change.
    fn bytes(&self, address: usize) -> Option<Bytes<'a>> {
        let header = self.segment(address)?;
        if header.p_flags & libc::PF_R == 0 || header.p_flags & libc::PF_W != 0 {
            return None;
        }
        let (from, to) = self.span(header)?;
        if from == 0 || to - from > isize::MAX as usize {
            return None;
        }
        // SAFETY: I3: the loader has mapped this part of the segment from the file, readable and not
        // writable, and cannot unmap it before the callback returns, which `'a` does not outlive.
        // Not null and no longer than a slice may be, by the check.
        let bytes = unsafe {
            slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(from), to - from)
        };
        Some(Bytes {
            bytes,
            address: from,
        })
    }

    fn rule(&self, return_address: usize) -> Rule {
        let header = || {
            let header = self
                .headers
                .iter()
                .find(|header| header.p_type == libc::PT_GNU_EH_FRAME)?;
            let (from, to) = self.span(header)?;
            let segment = self.bytes(from)?;
            let bytes = segment.bytes.get(from - segment.address..)?;
            let bytes = bytes.get(..to - from)?;
            Some(Bytes {
                bytes,
                address: from,
            })
        };
        match header() {
            Some(header) => {
                rule::compute::<Native>(return_address, header, |address| self.bytes(address))
            }
            None => Rule::UNKNOWN,
        }
    }
}

/// Calls `visit` with each module, the program first, until it answers false. Under the loader's
/// lock, so that it must not panic and not load anything.
fn each_module(visit: &mut dyn FnMut(&Module<'_>) -> bool) {
    type Visit<'v> = &'v mut dyn FnMut(&Module<'_>) -> bool;

    unsafe extern "C" fn callback(
        info: *mut libc::dl_phdr_info,
        size: usize,
        visit: *mut c_void,
    ) -> c_int {
        if size < mem::size_of::<libc::dl_phdr_info>() {
            // An older loader without the counters: we do not know this one.
            return 1;
        }
        // SAFETY: the loader hands a structure of at least the size that was just checked, which
        // nobody changes while it holds its lock.
        let info = unsafe { &*info };
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the loader keeps that many program headers there for as long as the module is
        // loaded, which it is while the lock is held.
        let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        // SAFETY: it is the pointer to the caller's reference, given to `dl_iterate_phdr` below, and
        // used by nobody else before that returns.
        let visit = unsafe { &mut *visit.cast::<Visit<'_>>() };
        let module = Module {
            base: info.dlpi_addr as usize,
            headers,
            adds: info.dlpi_adds,
            subs: info.dlpi_subs,
        };
        c_int::from(!visit(&module))
    }

    let mut visit: Visit<'_> = visit;
    // SAFETY: the callback has the type that is asked for, and `visit` lives until the call returns.
    unsafe {
        libc::dl_iterate_phdr(Some(callback), (&raw mut visit).cast());
    }
}

/// Bytes and the address at which the process has them.
#[cfg(test)]
type Copied = (usize, Vec<u8>);

/// Copies of the tables of this program: the header, and the segment that has the table itself.
#[cfg(test)]
pub(super) fn tables_of_program() -> Option<(Copied, Copied)> {
    let mut copies = None;
    each_module(&mut |module| {
        let header = module
            .headers
            .iter()
            .find(|header| header.p_type == libc::PT_GNU_EH_FRAME);
        let Some((from, to)) = header.and_then(|header| module.span(header)) else {
            return false;
        };
        copies = module.bytes(from).map(|segment| {
            let offset = from - segment.address;
            let header = segment.bytes[offset..][..to - from].to_vec();
            ((from, header), (segment.address, segment.bytes.to_vec()))
        });
        false
    });
    copies
}
