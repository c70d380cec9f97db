//! A process that stood still does not blame those who could not run.

use std::time::Duration;

use crate::child::{Role, play};

#[test]
fn a_process_that_was_stopped_for_twenty_seconds_reports_nothing_of_its_own() {
    let child = play(Role::Held, &[]).until("held");
    child.signal("-STOP");
    // The one thing here that only time can do.
    std::thread::sleep(Duration::from_secs(20));
    child.signal("-CONT");
    let rest = child.rest();
    assert!(
        rest.contains("said held_too_long second"),
        "it still reports: {rest}"
    );
    assert!(!rest.contains("first"), "{rest}");
    assert!(!rest.contains("exhausted"), "{rest}");
}

#[test]
fn the_same_process_reports_when_it_was_not_stopped() {
    let rest = play(Role::Held, &[]).until("held").rest();
    assert!(rest.contains("said held_too_long first"), "{rest}");
    assert!(rest.contains("said exhausted first"), "{rest}");
    assert!(rest.contains("said returned_late first"), "{rest}");
    assert!(rest.contains("said held_too_long second"), "{rest}");
}
