//! Captures and `eventually` find what is there, and fail with a clear text when it is not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::support::eventually::eventually_blocking;
use crate::support::{Capture, Events, eventually};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(20);

fn panic_text(body: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("it should have failed");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic
            .downcast_ref::<&str>()
            .expect("a panic with a text")
            .to_string(),
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn second(items: &[u32]) -> Option<u32> {
    items.get(1).copied()
}

#[test]
fn a_blocking_wait_gets_what_another_thread_pushes() {
    let capture = Capture::new();
    let pusher = capture.clone();
    let thread = std::thread::spawn(move || {
        pusher.push(1);
        pusher.push(2);
    });
    assert_eq!(capture.wait_for_blocking("two items", LONG, second), 2);
    thread.join().expect("the pusher");
    assert_eq!(capture.take(), [1, 2]);
    assert!(capture.is_empty());
}

#[tokio::test]
async fn a_wait_on_one_thread_gets_what_another_thread_pushes() {
    pushed_from_outside().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_on_many_threads_gets_what_another_thread_pushes() {
    pushed_from_outside().await;
}

async fn pushed_from_outside() {
    let capture = Capture::new();
    let pusher = capture.clone();
    let thread = std::thread::spawn(move || {
        pusher.push(1);
        pusher.push(2);
    });
    assert_eq!(capture.wait_for("two items", LONG, second).await, 2);
    thread.join().expect("the pusher");
}

#[test]
fn a_wait_in_vain_lists_what_was_seen() {
    let capture = Capture::new();
    capture.push("apples");
    capture.push("pears");
    let never = |_: &[&str]| None::<()>;
    let blocking = panic_text(|| capture.wait_for_blocking("plums", SHORT, never));
    let waiting = panic_text(|| block_on(capture.wait_for("plums", SHORT, never)));
    for text in [blocking, waiting] {
        assert!(text.starts_with("not within 20ms: plums (asked at tests/harness/captures.rs:"));
        assert!(text.ends_with("); captured 2:\n  0: \"apples\"\n  1: \"pears\""));
    }
}

#[test]
fn a_wait_in_vain_says_that_nothing_was_seen() {
    let capture = Capture::<u32>::new();
    let text = panic_text(|| {
        capture.wait_for_blocking("a finding", SHORT, second);
    });
    assert!(text.ends_with("; nothing was captured"), "{text}");
}

#[tokio::test]
async fn eventually_returns_what_the_condition_found() {
    let mut asked = 0;
    let found = eventually("three questions", LONG, async || {
        asked += 1;
        (asked == 3).then_some("found")
    })
    .await;
    assert_eq!(found, "found");
}

#[test]
fn eventually_in_vain_says_what_it_last_saw() {
    let waiting = panic_text(|| {
        block_on(eventually("a free lock", SHORT, async || {
            Err::<(), _>("held")
        }));
    });
    let blocking = panic_text(|| {
        eventually_blocking("a free lock", SHORT, || Err::<(), _>("held"));
    });
    for text in [waiting, blocking] {
        assert!(text.starts_with("not within 20ms: a free lock (last seen: \"held\""));
    }
}

#[test]
fn events_of_leaktrace_are_captured_with_their_fields() {
    let events = Events::new();
    let here = events.here();
    tracing::warn!(target: "leaktrace", held_ms = 1200, pool = "orders", "held too long");
    tracing::info!(target: "leaktrace::report", "one more");
    tracing::error!(target: "leaktracer", "not ours");
    tracing::error!("not ours either: the target is this test's module");
    drop(here);
    let all = events.all();
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0].level, tracing::Level::WARN);
    assert_eq!(all[0].message, "held too long");
    assert_eq!(all[0].fields["held_ms"], "1200");
    assert_eq!(all[0].fields["pool"], "orders");
    assert_eq!(all[1].target, "leaktrace::report");
}

#[test]
fn events_outside_of_the_subscriber_are_not_captured() {
    let events = Events::new();
    tracing::warn!(target: "leaktrace", "before");
    drop(events.here());
    tracing::warn!(target: "leaktrace", "after");
    assert!(events.is_empty(), "{:?}", events.all());
}

/// tracing alone remembers of such an event that nobody wants it.
#[test]
fn an_event_that_another_thread_reached_first_is_captured() {
    fn say() {
        tracing::warn!(target: "leaktrace", "by whoever calls");
    }
    let events = Events::new();
    let _here = events.here();
    std::thread::spawn(say).join().expect("the other thread");
    assert!(events.is_empty(), "the other one has no subscriber");
    say();
    assert_eq!(events.all().len(), 1);
}
