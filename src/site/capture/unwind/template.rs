//! Stacks that were seen before, as distances and addresses.
//!
//! Responsible for keeping, finding and checking them, and for I4 and I5 of the parent's invariants.
//!
//! # Why a hit is the stack
//! A walk is a function of the words it reads. It starts at a return address with a rule, which says
//! where the next return address lies: at a distance from the stack pointer that depends on the rule
//! alone, or at one from the frame pointer. A template holds the first return address, each word that
//! the walk then read as an address, and the frame pointers that it measured from. If all of them
//! are the same again, then by induction every step of a walk by the same rules would be the same,
//! and find the same addresses. The rules are the same while the generation is.

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use super::arch::{Arch, Native};
use super::thread::{Registers, Stack};
use super::walk::{FRAMES, FpSource, Trail};

/// The sets, of which one is chosen by the site and by the depth of the stack: stacks of one site
/// that come by different ways are mostly of different depth.
const SETS: usize = 512;
const WAYS: usize = 4;
/// Addresses are checked by groups without a branch between, so that loads overlap; the last group
/// is filled up with its last word.
const GROUP: usize = 4;

/// One stack. A reader takes what it reads for true only if the sequence number was even before, and
/// the same after.
#[repr(align(64))]
struct Template<T> {
    sequence: AtomicU64,
    /// The first return address, which lies in the capturing function itself. 0: empty.
    pc: AtomicUsize,
    /// The distance of the frame pointer from the stack pointer at the start, or [`ANY`].
    fp: AtomicUsize,
    /// Generation in the upper half, then how many addresses and how many frame pointers.
    head: AtomicU64,
    token: AtomicPtr<T>,
    addresses: [AtomicUsize; FRAMES],
    /// In bytes above the stack pointer.
    distances: [AtomicU32; FRAMES],
    /// Where a frame pointer was saved, and how far above the stack pointer it points.
    fps: [(AtomicU32, AtomicU32); FRAMES],
}

const _: () = assert!(FRAMES.is_multiple_of(GROUP));

/// The frame pointer at the start does not matter.
const ANY: usize = usize::MAX;

/// 2.6 MiB of zeros, of which the system provides what is touched.
pub(super) struct Templates<T: 'static> {
    sets: [[Template<T>; WAYS]; SETS],
    next_victim: AtomicUsize,
    /// Takes any template for the right one: what a test must notice.
    #[cfg(test)]
    pub(super) unchecked: std::sync::atomic::AtomicBool,
}

impl<T: Sync + 'static> Templates<T> {
    pub(super) const fn new() -> Self {
        Self {
            sets: [const { [const { Template::new() }; WAYS] }; SETS],
            next_victim: AtomicUsize::new(0),
            #[cfg(test)]
            unchecked: std::sync::atomic::AtomicBool::new(false),
        }
    }

    #[inline]
    fn set(&self, site: usize, stack: &Stack) -> &[Template<T>; WAYS] {
        let mixed =
            (site as u64 ^ (stack.depth() as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.sets[(mixed >> (64 - SETS.ilog2())) as usize]
    }

    #[inline]
    pub(super) fn find(
        &self,
        site: usize,
        generation: u32,
        from: Registers,
        stack: &Stack,
    ) -> Option<&'static T> {
        #[cfg(test)]
        if self.unchecked.load(Ordering::Relaxed) {
            let token = self.sets[0][0].token.load(Ordering::Relaxed);
            // SAFETY: I5, as in `check`.
            return unsafe { token.as_ref() };
        }
        self.set(site, stack)
            .iter()
            .find_map(|template| template.check(generation, from, stack))
    }

    /// Keeps a stack, instead of an older one if there is no room. Keeps nothing when it cannot be
    /// told by distances: frame pointers that point below the stack.
    #[cold]
    pub(super) fn add(
        &self,
        site: usize,
        generation: u32,
        from: Registers,
        stack: &Stack,
        trail: &Trail,
        token: &'static T,
    ) {
        let Some(contents) = Contents::of(trail) else {
            return;
        };
        let set = self.set(site, stack);
        #[cfg(test)]
        let set = match self.unchecked.load(Ordering::Relaxed) {
            true => &self.sets[0],
            false => set,
        };
        let stale = |template: &&Template<T>| {
            let head = template.head.load(Ordering::Relaxed);
            head == 0 || (head >> 32) as u32 != generation
        };
        let template = set
            .iter()
            .find(stale)
            .unwrap_or_else(|| &set[self.next_victim.fetch_add(1, Ordering::Relaxed) % WAYS]);
        template.write(|template| {
            let relaxed = Ordering::Relaxed;
            template.pc.store(from.pc, relaxed);
            template.fp.store(contents.fp, relaxed);
            template.head.store(contents.head(generation), relaxed);
            let token = std::ptr::from_ref(token).cast_mut();
            template.token.store(token, relaxed);
            for index in 0..contents.len {
                template.addresses[index].store(contents.addresses[index], relaxed);
                template.distances[index].store(contents.distances[index], relaxed);
            }
            let fps = template.fps.iter().zip(contents.fps);
            for ((at, points), fp) in fps.take(contents.fps_len) {
                at.store(fp.0, relaxed);
                points.store(fp.1, relaxed);
            }
        });
    }
}

/// What a template is made of, while it is made.
struct Contents {
    addresses: [usize; FRAMES],
    distances: [u32; FRAMES],
    /// A multiple of [`GROUP`].
    len: usize,
    fp: usize,
    fps: [(u32, u32); FRAMES],
    fps_len: usize,
}

impl Contents {
    fn of(trail: &Trail) -> Option<Self> {
        let mut contents = Self {
            addresses: [0; FRAMES],
            distances: [0; FRAMES],
            len: trail.addresses().len().next_multiple_of(GROUP),
            fp: ANY,
            fps: [(0, 0); FRAMES],
            fps_len: 0,
        };
        let last = trail.addresses().len().checked_sub(1)?;
        for index in 0..contents.len {
            let from = index.min(last);
            contents.addresses[index] = trail.addresses()[from];
            contents.distances[index] = trail.distances()[from].try_into().ok()?;
        }
        for &(source, fp) in trail.fps() {
            match source {
                FpSource::Register => contents.fp = fp,
                FpSource::Saved(at) => {
                    let slot = contents.fps.get_mut(contents.fps_len)?;
                    *slot = (at.try_into().ok()?, fp.try_into().ok()?);
                    contents.fps_len += 1;
                }
            }
        }
        Some(contents)
    }

    /// See [`Template::head`].
    fn head(&self, generation: u32) -> u64 {
        u64::from(generation) << 32 | (self.len as u64) << 16 | self.fps_len as u64
    }
}

impl<T: Sync + 'static> Template<T> {
    const fn new() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            pc: AtomicUsize::new(0),
            fp: AtomicUsize::new(0),
            head: AtomicU64::new(0),
            token: AtomicPtr::new(std::ptr::null_mut()),
            addresses: [const { AtomicUsize::new(0) }; FRAMES],
            distances: [const { AtomicU32::new(0) }; FRAMES],
            fps: [const { (AtomicU32::new(0), AtomicU32::new(0)) }; FRAMES],
        }
    }

    /// What the stack is, if it is this one.
    #[inline]
    fn check(&self, generation: u32, from: Registers, stack: &Stack) -> Option<&'static T> {
        let relaxed = Ordering::Relaxed;
        let sequence = self.sequence.load(Ordering::Acquire);
        let head = self.head.load(relaxed);
        if self.pc.load(relaxed) != from.pc
            || (head >> 32) as u32 != generation
            || !sequence.is_multiple_of(2)
        {
            return None;
        }
        let fp = self.fp.load(relaxed);
        if fp != ANY && fp != from.fp.wrapping_sub(from.sp) {
            return None;
        }
        let addresses = (head >> 16) as u16 as usize;
        let fps = head as u16 as usize;
        let (addresses, []) = self.addresses.get(..addresses)?.as_chunks::<GROUP>() else {
            return None;
        };
        let (distances, _) = self.distances.as_chunks::<GROUP>();
        for (addresses, distances) in addresses.iter().zip(distances) {
            let found = stack.load_all(distances.each_ref().map(|it| it.load(relaxed) as usize))?;
            let mut differs = 0;
            for (address, found) in addresses.iter().zip(found) {
                differs |= Native::strip(found) ^ address.load(relaxed);
            }
            if differs != 0 {
                return None;
            }
        }
        for (at, points) in self.fps.get(..fps)? {
            let found = stack.load(at.load(relaxed) as usize)?;
            if found.wrapping_sub(from.sp) != points.load(relaxed) as usize {
                return None;
            }
        }
        let token = self.token.load(relaxed);
        // A writer's odd number is stored before its words: whoever reads one of them sees it here.
        fence(Ordering::Acquire);
        if self.sequence.load(relaxed) != sequence {
            return None;
        }
        // SAFETY: I5: `token` is null or was a `&'static T` when `Templates::add` stored it. `T` is
        // `Sync`, so that any thread may have it.
        unsafe { token.as_ref() }
    }

    /// Runs `write` between two sequence numbers, unless somebody else does: then not at all.
    fn write(&self, write: impl FnOnce(&Self)) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        if !sequence.is_multiple_of(2)
            || self
                .sequence
                .compare_exchange(sequence, sequence + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        fence(Ordering::Release);
        write(self);
        self.sequence.store(sequence + 2, Ordering::Release);
    }
}
