//! Captures in every kind of frame that a service has.
//!
//! Responsible for the places of Rust. Each must have been compared often, and never be wrong or
//! unknown. Not responsible for other languages, threads and libraries: `foreign`, `libraries`.

use std::future::Future;
use std::hint::black_box;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::thread;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::{Builder, Handle};
use tokio::task::{LocalSet, spawn_blocking, yield_now};

use crate::compare::{Seen, all_found, compare, keep, times};
use crate::unwind::{FRAMES, Unwinder};

#[inline(never)]
fn descend(place: &'static str, depth: usize) -> usize {
    if depth == 0 {
        compare(place);
        return 0;
    }
    black_box(descend(place, depth - 1) + 1)
}

#[test]
fn deep_recursion_is_walked_to_the_last_frame_that_is_kept() {
    for turn in 0..times(6_000) {
        descend("recursion", turn % 150);
    }
    let count = all_found("recursion", 6_000);
    assert_eq!(count.deepest, FRAMES);
}

type Boxed<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

fn boxed(place: &'static str, depth: usize) -> Boxed<'static> {
    Box::pin(async move {
        if depth == 0 {
            compare(place);
            yield_now().await;
            compare(place);
        } else {
            boxed(place, depth - 1).await;
        }
    })
}

#[tokio::test]
async fn boxed_futures_are_walked() {
    for turn in 0..times(2_500) {
        boxed("boxed", turn % 20).await;
    }
    all_found("boxed", 5_000);
}

async fn twice(place: &'static str) {
    compare(place);
    yield_now().await;
    compare(place);
}

#[tokio::test]
async fn futures_of_join_all_are_walked() {
    for turn in 0..times(250) {
        // Above thirty, it is another future inside.
        join_all((0..turn % 40).map(|_| twice("join_all"))).await;
    }
    all_found("join_all", 5_000);
}

#[tokio::test]
async fn futures_of_a_futures_unordered_are_walked() {
    for _ in 0..times(250) {
        let mut all: FuturesUnordered<_> = (0..10).map(|_| twice("unordered")).collect();
        while all.next().await.is_some() {}
    }
    all_found("unordered", 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn spawned_tasks_are_walked() {
    for _ in 0..times(250) {
        let tasks = (0..10).map(|_| {
            tokio::spawn(async {
                twice("spawned").await;
                tokio::select! {
                    () = twice("spawned") => {}
                    () = tokio::time::sleep(Duration::from_secs(60)) => {}
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
    }
    all_found("spawned", 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_threads_are_walked() {
    for _ in 0..times(300) {
        let tasks = (0..8).map(|turn| {
            spawn_blocking(move || {
                descend("blocking", turn);
                Handle::current().block_on(twice("blocking"));
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        tokio::task::block_in_place(|| compare("blocking"));
    }
    all_found("blocking", 7_000);
}

#[test]
fn local_tasks_of_a_runtime_within_a_thread_are_walked() {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = Builder::new_current_thread().build().expect("a runtime");
                LocalSet::new().block_on(&runtime, async {
                    for _ in 0..times(300) {
                        let task = tokio::task::spawn_local(twice("local"));
                        task.await.expect("no panic");
                    }
                });
            });
        }
    });
    all_found("local", 2_400);
}

trait Shape {
    fn visit(&self, place: &'static str, depth: usize);
}

struct Flat<T>(T);
struct Nested<T, const N: usize>([T; N]);

impl<T: Default + Clone> Shape for Flat<T> {
    #[inline(always)]
    fn visit(&self, place: &'static str, depth: usize) {
        let room: [T; 8] = std::array::from_fn(|_| self.0.clone());
        black_box(&room);
        match depth {
            0 => compare(place),
            _ => Nested::<T, 3>(std::array::from_fn(|_| T::default())).visit(place, depth - 1),
        }
    }
}

impl<T: Default + Clone, const N: usize> Shape for Nested<T, N> {
    #[inline(never)]
    fn visit(&self, place: &'static str, depth: usize) {
        let shapes: [Box<dyn Shape>; 1] = match depth % 2 {
            0 => [Box::new(Flat(0u8))],
            _ => [Box::new(Flat([0u64; 5]))],
        };
        black_box(&self.0);
        shapes
            .iter()
            .map(|shape| (0..1).map(move |_| shape))
            .for_each(|mut shape| {
                shape
                    .next()
                    .into_iter()
                    .for_each(|it| it.visit(place, depth))
            });
    }
}

#[test]
fn generic_inlined_and_dynamic_calls_are_walked() {
    for turn in 0..times(1_500) {
        Flat(0u32).visit("generic", turn % 6);
        Flat([0u128; 4]).visit("generic", turn % 6);
        Nested::<String, 2>(Default::default()).visit("generic", turn % 4);
    }
    all_found("generic", 4_500);
}

struct OnDrop(&'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        compare(self.0);
    }
}

#[inline(never)]
fn unwind_through(depth: usize) {
    let _guard = OnDrop("panicking");
    match depth {
        // No hook: what is of interest is what comes after.
        0 => panic::resume_unwind(Box::new("on the way")),
        _ => unwind_through(depth - 1),
    }
    black_box(());
}

#[test]
fn drops_of_a_panic_in_progress_are_walked() {
    for turn in 0..times(600) {
        let caught = panic::catch_unwind(AssertUnwindSafe(|| unwind_through(turn % 8)));
        assert!(caught.is_err());
    }
    all_found("panicking", 2_000);
}

#[test]
fn a_panic_hook_is_walked() {
    let old = panic::take_hook();
    let me = thread::current().id();
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == me {
            compare("hook");
        } else {
            // Another test's.
            eprintln!("{info}");
        }
    }));
    for _ in 0..times(300) {
        let caught = panic::catch_unwind(|| {
            let nothing: Option<u8> = black_box(None);
            nothing.expect("there is something")
        });
        assert!(caught.is_err());
    }
    panic::set_hook(old);
    all_found("hook", 300);
}

/// Frames whose size is only known when they run, as far as Rust has them: a sort of the standard
/// library, which calls back, with a buffer on the stack.
#[test]
fn callbacks_of_the_standard_library_are_walked() {
    let mut turn = 0;
    for _ in 0..times(30) {
        let mut values: Vec<u32> = (0..30).rev().collect();
        values.sort_by(|one, other| {
            turn += 1;
            if turn % 5 == 0 {
                compare("sort");
            }
            one.cmp(other)
        });
    }
    all_found("sort", 100);
}

static ENDING: Unwinder<Seen> = Unwinder::new();

#[inline(never)]
fn nested(depth: usize) -> &'static Seen {
    if depth > 0 {
        return black_box(nested(depth - 1));
    }
    let found = ENDING.capture(1, keep).expect("rules for each frame");
    found.expect("everything is kept")
}

/// The same addresses each time, also where the compiler unrolls the loop around it.
#[inline(never)]
fn at_one_place() -> &'static Seen {
    black_box(nested(black_box(5)))
}

// Libraries that other tests load are noticed when an address is learned: none is after the first turns.
#[test]
fn a_walk_ends_where_it_was_told_to() {
    let mut ended_at = None;
    for turn in 0..4 {
        let found = at_one_place();
        match ended_at {
            // The second time, there was a template of the longer stack.
            None if turn == 1 => {
                assert!(found.len() > 8, "{found:x?}");
                // Behind the recursion, whose frames have one address.
                ENDING.end_at(found[6]);
                ended_at = Some(found);
            }
            None => {}
            Some(longer) => assert_eq!(found[..], longer[..7]),
        }
    }
}
