//! One line behind several callers: a stack is never taken for that of another.
//!
//! Responsible for templates of one site that are mixed up as much as can be, and for the proof that
//! the test notices when they are not checked.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::yield_now;

use crate::compare::{Seen, UNWINDER, keep, times};
use crate::unwind::Unwinder;

const SITE: usize = 0x517e;

type Capture = fn() -> &'static Seen;

fn checked() -> &'static Seen {
    let found = UNWINDER.capture(SITE, keep).expect("rules for each frame");
    found.expect("everything is kept")
}

fn believed() -> &'static Seen {
    static BELIEVING: Unwinder<Seen> = Unwinder::new();
    BELIEVING.believe_templates();
    let found = BELIEVING.capture(SITE, keep).expect("rules for each frame");
    found.expect("everything is kept")
}

/// The one line behind all of them.
#[inline(never)]
fn line(capture: Capture) -> &'static Seen {
    black_box(capture())
}

/// Callers whose frames look the same, and are not.
macro_rules! callers {
    ($($name:ident),*) => {
        $(#[inline(never)]
        fn $name(capture: Capture) -> &'static Seen {
            let seen = line(capture);
            black_box(stringify!($name));
            seen
        })*

        const CALLERS: &[(&str, fn(Capture) -> &'static Seen)] = &[$((stringify!($name), $name)),*];
    };
}

callers!(
    first_caller,
    second_caller,
    third_caller,
    fourth_caller,
    fifth_caller,
    sixth_caller,
    seventh_caller,
    eighth_caller,
    ninth_caller
);

/// Which of them are on the stack, by the names of its addresses.
fn names(seen: &Seen) -> Vec<usize> {
    let mut found = Vec::new();
    for &address in seen {
        backtrace::resolve((address - 1) as *mut _, |symbol| {
            let name = symbol.name().map(|name| name.to_string());
            let name = name.unwrap_or_default();
            found.extend(CALLERS.iter().position(|(caller, _)| name.contains(caller)));
        });
    }
    found
}

/// How many stacks there were, and how many had the name of another caller or none.
fn mix(capture: Capture, callers: usize, turns: usize) -> (u64, u64) {
    const TASKS: usize = 8;
    let taken = AtomicU64::new(0);
    let mut wrong = 0;
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .expect("a runtime");
    let distinct = runtime.block_on(async {
        let tasks = (0..TASKS).map(|task| {
            tokio::spawn(async move {
                let mut seen: Vec<(usize, &'static Seen)> = Vec::new();
                for turn in 0..turns / TASKS {
                    let who = (turn * 7 + task) % callers;
                    let stack = CALLERS[who].1(capture);
                    let this = |seen: &(usize, &'static Seen)| {
                        seen.0 == who && std::ptr::eq(seen.1, stack)
                    };
                    if !seen.iter().any(this) {
                        seen.push((who, stack));
                    }
                    if turn % 16 == 0 {
                        yield_now().await;
                    }
                }
                (turns / TASKS, seen)
            })
        });
        let mut distinct: Vec<(usize, &'static Seen)> = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            let (turns, seen) = task.await.expect("no panic");
            taken.fetch_add(turns as u64, Ordering::Relaxed);
            distinct.extend(seen);
        }
        distinct
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    // Naming takes long, and two tasks mostly saw the same.
    let mut named: Vec<(usize, &'static Seen)> = Vec::new();
    for (who, seen) in distinct {
        if named.contains(&(who, seen)) {
            continue;
        }
        named.push((who, seen));
        wrong += u64::from(names(seen) != [who]);
    }
    (taken.into_inner(), wrong)
}

#[test]
fn each_of_three_callers_of_one_line_has_its_own_stack() {
    let (taken, wrong) = mix(checked, 3, times(100_000));
    assert!(taken >= 100_000, "{taken}");
    assert_eq!(wrong, 0);
}

/// More of them than templates are kept of one site and depth: they are replaced all the time, while
/// others read them.
#[test]
fn each_of_too_many_callers_has_its_own_stack() {
    let (taken, wrong) = mix(checked, CALLERS.len(), times(100_000));
    assert!(taken >= 99_000, "{taken}");
    assert_eq!(wrong, 0);
}

#[test]
fn a_template_that_is_not_checked_would_be_noticed() {
    let (_, wrong) = mix(believed, 3, 800);
    assert!(wrong > 0);
}
