//! What a new user sees: the example, run as a program of its own.
//!
//! Responsible for the promise of the README: the reports name the lines of the bugs, and no other,
//! also when these lines move. Not responsible for what a report says about them.

mod moved;
mod program;

use program::{Program, marked_lines, reported_lines};

const FILE: &str = "examples/leaky_service.rs";
const SOURCE: &str = include_str!("../../examples/leaky_service.rs");

/// Printed when every bug has been reported, or when the example has given up on one.
const STORY: &str = "one for each bug";

#[test]
fn the_reports_name_the_line_of_each_bug_and_no_other() {
    let mut run = Program::example().start(&[("DEBUG_DB_LEAKS", "true")]);
    let text = run.read_until(STORY);
    assert_eq!(reported_lines(&text, FILE), marked_lines(SOURCE), "{text}");
    assert!(text.contains("4 reports, one for each bug"), "{text}");
    assert!(!text.contains("GET /orders/{id}\n"), "an innocent: {text}");
    assert!(!text.contains("serving    GET /orders/{id} "), "{text}");

    let rest = run.interrupt();
    assert!(rest.contains("not back in the pool"), "{rest}");
}

#[test]
fn seven_lines_further_down_every_reported_line_is_seven_higher() {
    let source = format!("{}{SOURCE}", "\n".repeat(7));
    let expected: Vec<u32> = marked_lines(SOURCE).iter().map(|line| line + 7).collect();
    assert_eq!(marked_lines(&source), expected);

    let mut run = moved::build(&source).start(&[("DEBUG_DB_LEAKS", "true")]);
    let text = run.read_until(STORY);
    assert_eq!(reported_lines(&text, "src/main.rs"), expected, "{text}");
    run.interrupt();
}

/// The twin: the same program and traffic, and nobody asked for reports.
#[test]
fn without_the_variable_no_old_holder_is_reported_and_it_says_how_to_switch_it_on() {
    let mut run = Program::example().start(&[("DEBUG_DB_LEAKS", ""), ("DB_LEAK_WAIT", "1s")]);
    let hint = run.read_until("DEBUG_DB_LEAKS=true cargo run --example leaky_service");
    let now = run.get_until(&hint, "/leaks", "× overdue");
    assert_ne!(
        reported_lines(&now, FILE),
        [],
        "known, when asked for: {now}"
    );

    let rest = run.interrupt();
    // The way out waits for the holders: that is a finding which speaks at any detail.
    let (served, closing) = rest
        .split_once("Closing the pool")
        .expect("it closes the pool");
    assert_eq!(reported_lines(served, FILE), [], "{served}");
    assert!(
        closing.contains("docs/findings/close_blocked.md"),
        "{closing}"
    );
}
