//! Captures on threads, stacks and in frames that are not Rust's.
//!
//! Responsible for what is found there, and for what is unknown there and why.
#![allow(unsafe_code)] // Threads, signals and callbacks of the C library.

use std::ffi::{c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::compare::{Seen, all_found, compare, count, times};
use crate::unwind::{Unknown, Unwinder};

/// Runs `body` on a thread of the C library with that much stack.
fn on_a_thread_of(stack: usize, body: extern "C" fn(*mut c_void) -> *mut c_void) {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: the attributes are initialised by the first call and destroyed by the last; the thread
    // is joined here, and its body needs no argument.
    unsafe {
        assert_eq!(libc::pthread_attr_init(attributes.as_mut_ptr()), 0);
        let set = libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack);
        assert_eq!(set, 0, "{stack} bytes");
        let made = libc::pthread_create(
            thread.as_mut_ptr(),
            attributes.as_ptr(),
            body,
            ptr::null_mut(),
        );
        assert_eq!(made, 0);
        assert_eq!(libc::pthread_join(thread.assume_init(), ptr::null_mut()), 0);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
    }
}

extern "C" fn foreign(_: *mut c_void) -> *mut c_void {
    for _ in 0..10 {
        compare("foreign thread");
    }
    ptr::null_mut()
}

#[test]
fn threads_that_rust_did_not_start_are_walked() {
    for _ in 0..times(200) {
        on_a_thread_of(1 << 20, foreign);
    }
    all_found("foreign thread", 2_000);
}

static SMALL: Unwinder<Seen> = Unwinder::new();
static ANSWERS: Mutex<Vec<Result<usize, Unknown>>> = Mutex::new(Vec::new());

extern "C" fn small(_: *mut c_void) -> *mut c_void {
    let answer = SMALL
        .capture(1, |addresses| {
            static ONE: AtomicUsize = AtomicUsize::new(0);
            ONE.store(addresses.len(), Ordering::Relaxed);
            None
        })
        .map(|_| 0);
    ANSWERS.lock().expect("no panic").push(answer);
    ptr::null_mut()
}

#[test]
fn a_thread_without_room_reads_no_tables_and_uses_what_others_learned() {
    let tiny = libc::PTHREAD_STACK_MIN.max(24 << 10);
    // In this order: nobody has learned anything yet.
    for stack in [tiny, 1 << 20, tiny] {
        on_a_thread_of(stack, small);
    }
    assert_eq!(
        *ANSWERS.lock().expect("no panic"),
        [Err(Unknown::Frame), Ok(0), Ok(0)]
    );
}

extern "C" fn in_order(one: *const c_void, other: *const c_void) -> c_int {
    compare("qsort");
    // SAFETY: `qsort` hands pointers to two elements of the array below, which are numbers.
    let (one, other) = unsafe { (*one.cast::<u32>(), *other.cast::<u32>()) };
    one.cmp(&other) as c_int
}

#[test]
fn a_callback_of_a_c_function_is_walked() {
    for _ in 0..times(30) {
        let mut values: Vec<u32> = (0..32).rev().collect();
        // SAFETY: an array of that many elements of that size, and a comparison of two of them.
        unsafe {
            libc::qsort(
                values.as_mut_ptr().cast(),
                values.len(),
                mem::size_of::<u32>(),
                Some(in_order),
            );
        }
        assert!(values.is_sorted());
    }
    all_found("qsort", 1_000);
}

extern "C" fn on_signal(_: c_int) {
    compare("signal");
}

extern "C" fn on_signal_elsewhere(_: c_int) {
    compare("signal stack");
}

fn handle(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    // SAFETY: zeros are a valid `sigaction`, and the handler has the type of one without more
    // arguments. It is only raised below, where nothing is interrupted.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

#[test]
fn behind_a_signal_the_way_is_unknown() {
    handle(libc::SIGUSR1, on_signal, 0);
    for _ in 0..times(100) {
        // SAFETY: the handler above is there.
        unsafe { libc::raise(libc::SIGUSR1) };
    }
    let count = count("signal");
    assert_eq!(count.wrong, 0);
    // A signal comes between any two instructions, where frames may be half made.
    assert_eq!(count.unknown.get("Frame"), Some(&count.compared));
}

#[test]
fn on_a_stack_that_is_not_the_threads_everything_is_unknown() {
    handle(libc::SIGUSR2, on_signal_elsewhere, libc::SA_ONSTACK);
    let turns = times(100);
    std::thread::spawn(move || {
        let mut room = vec![0u8; 256 << 10];
        let stack = libc::stack_t {
            ss_sp: room.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: room.len(),
        };
        let mut old = MaybeUninit::<libc::stack_t>::uninit();
        // SAFETY: the stack lives until the old one is set again.
        unsafe { assert_eq!(libc::sigaltstack(&stack, old.as_mut_ptr()), 0) };
        for _ in 0..turns {
            // SAFETY: the handler above is there.
            unsafe { libc::raise(libc::SIGUSR2) };
        }
        // SAFETY: it was filled by the first call.
        unsafe { assert_eq!(libc::sigaltstack(old.as_ptr(), ptr::null_mut()), 0) };
    })
    .join()
    .expect("no panic");
    let count = count("signal stack");
    assert_eq!(count.wrong, 0);
    assert_eq!(count.unknown.get("Elsewhere"), Some(&count.compared));
}

/// A frame above what a rule can hold.
#[inline(never)]
fn huge() {
    let room = [1u8; 600 << 10];
    std::hint::black_box(&room);
    compare("huge");
    std::hint::black_box(&room);
}

#[test]
fn a_frame_too_large_for_a_rule_is_never_wrong() {
    std::thread::Builder::new()
        .stack_size(8 << 20)
        .spawn(huge)
        .expect("a thread")
        .join()
        .expect("no panic");
    let count = count("huge");
    assert_eq!(count.wrong, 0);
    // Unknown, unless the build has frame pointers: then its size is not in the rule.
    let unknown = count.unknown.get("Frame").copied().unwrap_or_default();
    assert!(unknown == count.compared || unknown == 0, "{unknown}");
}
