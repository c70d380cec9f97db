//! The calling thread: its registers, the bounds of its stack, and the words between.
//!
//! Responsible for I1 and I2 of the parent's invariants. Not responsible for what a word means.

use std::arch::{asm, naked_asm};
use std::cell::Cell;
use std::mem::MaybeUninit;

/// The registers of a function, as they are when a call that it makes returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    /// The return address of that call: it lies in the function that asked.
    pub(super) pc: usize,
    pub(super) sp: usize,
    pub(super) fp: usize,
}

/// The registers of the caller.
///
/// Not inline assembly in the caller: a return address is what rules are about, and at one the
/// compiler's tables are exact, whatever it does to the stack pointer elsewhere.
#[inline(always)]
pub(super) fn registers() -> Registers {
    let mut fp = 0;
    // SAFETY: `read` writes the one word it is given a reference to, and is otherwise a function that
    // returns two words.
    let Pair { pc, sp } = unsafe { read(&mut fp) };
    Registers { pc, sp, fp }
}

/// Returned in two registers, by the C calling convention of x86_64.
#[repr(C)]
struct Pair {
    pc: usize,
    sp: usize,
}

/// The registers of its caller.
///
/// # Safety
/// None is needed beyond the reference: it changes two registers that a call may change, and nothing
/// in memory but `fp`.
#[unsafe(naked)]
unsafe extern "C" fn read(fp: &mut usize) -> Pair {
    naked_asm!(
        "mov [rdi], rbp",
        // The return address lies on top; without it, the stack is that of the caller.
        "mov rax, [rsp]",
        "lea rdx, [rsp + 8]",
        "ret",
    )
}

/// The part of this thread's stack that lies above a stack pointer.
///
/// Invariant: `[sp, sp + size)` is part of the stack that the system gave this thread, `sp` is
/// aligned to a word, and the function whose stack pointer it was is still running. The last is up to
/// the caller of [`Stack::of`], and kept by never letting a `Stack` leave the module: it is made in
/// the functions that are entered from outside, and handed down by reference.
#[derive(Debug)]
pub(super) struct Stack {
    sp: usize,
    size: usize,
    // The bounds are those of one thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

/// Lowest address and base of this thread's stack. `NONE` when it cannot be told.
#[derive(Clone, Copy)]
struct Bounds {
    low: usize,
    base: usize,
}

const UNASKED: Bounds = Bounds { low: 0, base: 0 };
const NONE: Bounds = Bounds { low: 1, base: 1 };

thread_local! {
    // A constant without a destructor: it can be read at any moment of a thread's life.
    static BOUNDS: Cell<Bounds> = const { Cell::new(UNASKED) };
}

impl Stack {
    /// `None` when the stack pointer does not lie in the stack that this thread was started with.
    #[inline(always)]
    pub(super) fn of(registers: Registers) -> Option<Self> {
        let sp = registers.sp;
        let mut bounds = BOUNDS.get();
        if !bounds.hold(sp) {
            bounds = ask();
            if !bounds.hold(sp) {
                return None;
            }
        }
        Some(Self {
            sp,
            size: bounds.base - sp,
            _not_send: std::marker::PhantomData,
        })
    }

    /// The word at that distance above the stack pointer, if all of it lies in the stack.
    #[inline(always)]
    pub(super) fn load(&self, distance: usize) -> Option<usize> {
        self.load_all([distance]).map(|[word]| word)
    }

    /// The words at those distances above the stack pointer, if all of them lie in the stack.
    #[inline(always)]
    pub(super) fn load_all<const N: usize>(&self, distances: [usize; N]) -> Option<[usize; N]> {
        let last = self.last();
        // No distance is larger than all of them combined: one comparison, nearly always.
        let combined = distances.iter().fold(0, |bits, distance| bits | distance);
        if combined > last && distances.iter().any(|&distance| distance > last) {
            return None;
        }
        Some(distances.map(|distance| {
            let word: usize;
            // SAFETY: I1: by the invariant of `Stack`, and because no distance is above `last`, the
            // whole word lies between the stack pointer of a running function and the base of this
            // thread's stack, which is mapped and readable. I2: the processor reads it, the result is
            // an integer, nothing is written.
            unsafe {
                asm!(
                    "mov {word}, [{sp} + {distance}]",
                    word = lateout(reg) word,
                    sp = in(reg) self.sp,
                    distance = in(reg) distance,
                    options(readonly, nostack, preserves_flags)
                );
            }
            word
        }))
    }

    /// The distance of the last word. The stack pointer is aligned and lies below the base, which is
    /// aligned too: there is at least one word.
    #[inline(always)]
    fn last(&self) -> usize {
        self.size - 8
    }

    /// Bytes between the stack pointer and the base.
    #[inline]
    pub(super) fn depth(&self) -> usize {
        self.size
    }

    /// Bytes that are left below the stack pointer.
    pub(super) fn room(&self) -> usize {
        self.sp.saturating_sub(BOUNDS.get().low)
    }
}

impl Bounds {
    #[inline(always)]
    fn hold(self, sp: usize) -> bool {
        sp >= self.low && sp < self.base && sp.is_multiple_of(8)
    }
}

#[cold]
#[inline(never)]
fn ask() -> Bounds {
    let known = BOUNDS.get();
    if known.base != UNASKED.base {
        return known;
    }
    let bounds = bounds().unwrap_or(NONE);
    BOUNDS.set(bounds);
    bounds
}

/// Asks the system. Once for each thread: for the main thread it reads a file.
fn bounds() -> Option<Bounds> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut low = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: `pthread_getattr_np` fills the attributes of this thread, and says with 0 that it did;
    // only then they are read and destroyed, each once. The pointers are to locals.
    let answer = unsafe {
        let thread = libc::pthread_self();
        if libc::pthread_getattr_np(thread, attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let answer = libc::pthread_attr_getstack(attributes.as_ptr(), &mut low, &mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        answer
    };
    let low = low.addr();
    let base = low.checked_add(size)?;
    (answer == 0 && low > NONE.low && base.is_multiple_of(8) && size >= 8)
        .then_some(Bounds { low, base })
}
