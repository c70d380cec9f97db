//! Captures in every kind of frame that a service has, and in some that it hopefully has not.
//!
//! Responsible for the places. Each says how often it was captured there and that none was wrong.

use std::future::Future;
use std::pin::Pin;

use crate::compare::{COUNTS, Count, compare};

fn times(count: usize) -> usize {
    let more = std::env::var("LEAKTRACE_SOAK")
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(1);
    count * more
}

/// What came of a place: none may be wrong, and none unknown.
#[track_caller]
fn all_found(place: &'static str, at_least: usize) -> Count {
    let counts = COUNTS.lock().expect("no test panics with the counts");
    let count = counts.get(place).cloned().unwrap_or_default();
    drop(counts);
    println!("{place}: {count:?}");
    assert_eq!(
        count.wrong,
        0,
        "{place}: {}",
        count.example.unwrap_or_default()
    );
    assert!(count.unknown.is_empty(), "{place}: {:?}", count.unknown);
    assert!(
        count.compared >= at_least as u64,
        "{place}: {}",
        count.compared
    );
    count
}

#[inline(never)]
fn descend(place: &'static str, depth: usize) -> usize {
    if depth == 0 {
        compare(place);
        return 0;
    }
    std::hint::black_box(descend(place, depth - 1) + 1)
}

#[test]
fn deep_recursion_is_walked_to_the_last_frame_that_is_kept() {
    for turn in 0..times(5_000) {
        descend("recursion", turn % 150);
    }
    let count = all_found("recursion", 15_000);
    assert_eq!(count.deepest, crate::unwind::FRAMES);
}

fn boxed(place: &'static str, depth: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        if depth == 0 {
            compare(place);
            tokio::task::yield_now().await;
            compare(place);
        } else {
            boxed(place, depth - 1).await;
        }
    })
}

#[tokio::test]
async fn boxed_futures_are_walked() {
    for turn in 0..times(1_000) {
        boxed("boxed", turn % 20).await;
    }
    all_found("boxed", 6_000);
}
