//! One capture beside the system's unwinder, from the same frame.
//!
//! Responsible for the comparison and the count. Not responsible for where it is done.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::unwind::{FRAMES, Unwinder};

pub(crate) type Seen = Vec<usize>;

pub(crate) static UNWINDER: Unwinder<Seen> = Unwinder::new();

static KEPT: LazyLock<Mutex<HashMap<Seen, &'static Seen>>> = LazyLock::new(Mutex::default);

/// Each distinct stack once, for ever: what the crate does too.
pub(crate) fn keep(addresses: &[usize]) -> Option<&'static Seen> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.get(addresses) {
        return Some(known);
    }
    let leaked: &'static Seen = Box::leak(Box::new(addresses.to_vec()));
    kept.insert(addresses.to_vec(), leaked);
    Some(leaked)
}

/// What came of the captures at one place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    pub(crate) compared: u64,
    pub(crate) deepest: usize,
    /// A template was enough.
    pub(crate) recognised: u64,
    /// The fast walk said that it does not know; by reason.
    pub(crate) unknown: BTreeMap<String, u64>,
    pub(crate) wrong: u64,
    pub(crate) example: Option<String>,
}

pub(crate) static COUNTS: Mutex<BTreeMap<&'static str, Count>> = Mutex::new(BTreeMap::new());

/// The return addresses behind the function that calls this: those of the system.
///
/// `function` is that function's address; frames up to its own are left out.
#[inline(always)]
fn slow(function: usize) -> Seen {
    let mut found = Vec::with_capacity(FRAMES);
    let mut inside = true;
    backtrace::trace(|frame| {
        if inside {
            inside = frame.symbol_address().addr() != function;
        } else if !frame.ip().is_null() {
            found.push(frame.ip().addr());
        }
        found.len() < FRAMES - 1
    });
    found
}

/// Captures here in each way that there is, and counts what is not the same.
#[inline(never)]
pub(crate) fn compare(place: &'static str) {
    let site = place.as_ptr().addr();
    let expected = slow(compare as fn(&'static str) as usize);
    let mut answers = Vec::with_capacity(3);
    let walks = Cell::new(0);
    // The second time there is a template, if both come from one address: nothing to unroll.
    for _ in 0..black_box(2) {
        let found = UNWINDER.capture(site, |addresses| {
            walks.set(walks.get() + 1);
            keep(addresses)
        });
        answers.push(found.map(|found| found.expect("everything is kept").clone()));
    }
    let recognised = answers.iter().filter(|answer| answer.is_ok()).count() - walks.get();
    let mut walked = Vec::new();
    answers.push(
        UNWINDER
            .addresses(|addresses| walked.extend(addresses))
            .map(|()| walked),
    );
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let count = counts.entry(place).or_default();
    count.recognised += recognised as u64;
    for answer in answers {
        count.compared += 1;
        match answer {
            // The first address lies in this function, at another call.
            Ok(found) if found.get(1..) == Some(&expected) => {
                count.deepest = count.deepest.max(found.len());
            }
            Ok(found) => {
                count.wrong += 1;
                count
                    .example
                    .get_or_insert_with(|| format!("found {found:x?}\nexpected {expected:x?}"));
            }
            Err(unknown) => *count.unknown.entry(format!("{unknown:?}")).or_default() += 1,
        }
    }
}

/// How often to do something: that many times, or many times more in a long run.
pub(crate) fn times(count: usize) -> usize {
    let more = std::env::var("LEAKTRACE_SOAK").ok();
    count * more.and_then(|value| value.parse().ok()).unwrap_or(1)
}

pub(crate) fn count(place: &'static str) -> Count {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let count = counts.get(place).cloned().unwrap_or_default();
    drop(counts);
    println!("{place}: {count:?}");
    count
}

/// None may be wrong, none unknown, and there must have been that many.
#[track_caller]
pub(crate) fn all_found(place: &'static str, at_least: usize) -> Count {
    let count = count(place);
    let example = count.example.clone().unwrap_or_default();
    assert_eq!(count.wrong, 0, "{place}: {example}");
    assert!(count.unknown.is_empty(), "{place}: {:?}", count.unknown);
    // Each comparison is of three captures.
    let compared = count.compared / 3;
    assert!(compared >= at_least as u64, "{place}: {compared}");
    // Otherwise templates were not compared at all.
    assert!(count.recognised >= compared / 2, "{place}: {count:?}");
    count
}
