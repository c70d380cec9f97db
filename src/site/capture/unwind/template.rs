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

use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

use super::arch::{Arch, Native};
use super::thread::{Registers, Stack};
use super::walk::{FRAMES, FpSource, Trail};

/// The sets, of which one is chosen by the site and by the depth of the stack: stacks of one site
/// that come by different ways are mostly of different depth.
const SETS: usize = 512;
const WAYS: usize = 4;
/// Addresses and saved frame pointers.
const WORDS: usize = FRAMES + 56;

/// A word to check: what is expected, and 17 bits for how many words above the stack pointer.
const DISTANCE_BITS: u32 = 17;

fn pack(expected: usize, distance: usize) -> Option<u64> {
    let words = distance / 8;
    let fits = distance % 8 == 0
        && words >> DISTANCE_BITS == 0
        && expected as u64 >> (64 - DISTANCE_BITS) == 0;
    fits.then_some((expected as u64) << DISTANCE_BITS | words as u64)
}

fn unpack(word: u64) -> (usize, usize) {
    let distance = (word & ((1 << DISTANCE_BITS) - 1)) as usize * 8;
    ((word >> DISTANCE_BITS) as usize, distance)
}

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
    words: [AtomicU64; WORDS],
}

/// The frame pointer at the start does not matter.
const ANY: usize = usize::MAX;

fn head(generation: u32, addresses: usize, fps: usize) -> u64 {
    u64::from(generation) << 32 | (addresses as u64) << 16 | fps as u64
}

/// 2 MiB of zeros, of which the system provides what is touched.
pub(super) struct Templates<T: 'static> {
    sets: [[Template<T>; WAYS]; SETS],
    next_victim: AtomicUsize,
}

impl<T: Sync + 'static> Templates<T> {
    pub(super) const fn new() -> Self {
        Self {
            sets: [const { [const { Template::new() }; WAYS] }; SETS],
            next_victim: AtomicUsize::new(0),
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
        from: &Registers,
        stack: &Stack,
    ) -> Option<&'static T> {
        self.set(site, stack)
            .iter()
            .find_map(|template| template.check(generation, from, stack))
    }

    /// Keeps a stack, instead of an older one if there is no room. Keeps nothing when it cannot be
    /// told by distances: a stack deeper than 1 MiB, or frame pointers that point below it.
    #[cold]
    pub(super) fn add(
        &self,
        site: usize,
        generation: u32,
        from: &Registers,
        stack: &Stack,
        trail: &Trail,
        token: &'static T,
    ) {
        let mut words = [0; WORDS];
        let Some((fp, fps)) = describe(trail, &mut words) else {
            return;
        };
        let set = self.set(site, stack);
        let stale = |template: &&Template<T>| {
            let head = template.head.load(Ordering::Relaxed);
            head == 0 || (head >> 32) as u32 != generation
        };
        let template = set
            .iter()
            .find(stale)
            .unwrap_or_else(|| &set[self.next_victim.fetch_add(1, Ordering::Relaxed) % WAYS]);
        let addresses = trail.addresses().len();
        template.write(|template| {
            let relaxed = Ordering::Relaxed;
            template.pc.store(from.pc, relaxed);
            template.fp.store(fp, relaxed);
            template
                .head
                .store(head(generation, addresses, fps), relaxed);
            template
                .token
                .store(std::ptr::from_ref(token).cast_mut(), relaxed);
            for (to, word) in template.words.iter().zip(words).take(addresses + fps) {
                to.store(word, relaxed);
            }
        });
    }
}

/// The words of a trail: addresses first, saved frame pointers after. Gives what the first frame
/// pointer must be, and how many frame pointers there are.
fn describe(trail: &Trail, words: &mut [u64; WORDS]) -> Option<(usize, usize)> {
    let mut to = words.iter_mut();
    for (&address, &distance) in trail.addresses().iter().zip(trail.distances()) {
        if address % (1 << Native::ALIGNED) != 0 {
            return None;
        }
        *to.next()? = pack(address >> Native::ALIGNED, distance)?;
    }
    let mut first = ANY;
    let mut fps = 0;
    for &(source, fp) in trail.fps() {
        match source {
            FpSource::Register => first = fp,
            FpSource::Saved(distance) => {
                *to.next()? = pack(fp, distance)?;
                fps += 1;
            }
        }
    }
    Some((first, fps))
}

impl<T: Sync + 'static> Template<T> {
    const fn new() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            pc: AtomicUsize::new(0),
            fp: AtomicUsize::new(0),
            head: AtomicU64::new(0),
            token: AtomicPtr::new(std::ptr::null_mut()),
            words: [const { AtomicU64::new(0) }; WORDS],
        }
    }

    /// What the stack is, if it is this one.
    #[inline]
    fn check(&self, generation: u32, from: &Registers, stack: &Stack) -> Option<&'static T> {
        let relaxed = Ordering::Relaxed;
        let sequence = self.sequence.load(Ordering::Acquire);
        let head = self.head.load(relaxed);
        if self.pc.load(relaxed) != from.pc
            || (head >> 32) as u32 != generation
            || sequence % 2 != 0
        {
            return None;
        }
        let fp = self.fp.load(relaxed);
        if fp != ANY && fp != from.fp.wrapping_sub(from.sp) {
            return None;
        }
        let addresses = (head >> 16) as u16 as usize;
        let fps = head as u16 as usize;
        for word in self.words.get(..addresses)? {
            let (expected, distance) = unpack(word.load(relaxed));
            if Native::strip(stack.load(distance)?) != expected << Native::ALIGNED {
                return None;
            }
        }
        for word in self.words.get(addresses..addresses + fps)? {
            let (expected, distance) = unpack(word.load(relaxed));
            if stack.load(distance)?.wrapping_sub(from.sp) != expected {
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
        if sequence % 2 != 0
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
