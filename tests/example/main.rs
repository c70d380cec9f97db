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
    assert!(text.contains("8 reports, one for each bug"), "{text}");
    assert!(!text.contains("GET /orders/{id}\n"), "an innocent: {text}");
    assert!(!text.contains("serving    GET /orders/{id} "), "{text}");
    for (request, cause) in [
        ("POST /orders/{id}/ship   request o1", "idle in transaction"),
        ("GET /statistics/sales   request s1", "outlived its request"),
        ("POST /articles/{id}/restock   ", "overdue, held"),
        ("POST /archive   request a1", "rows not read"),
        ("GET /statistics/top-ten   request s2", "· nested 1"),
        (
            "POST /transfers   2 requests, e.g. t",
            "· deadlock 2: every connection",
        ),
        (
            "POST /orders/{id}/mail   request m1",
            "outlived its request",
        ),
        (
            "POST /orders/{id}/invoice   request i1",
            "POST /orders/{id}/invoice has been inside one poll for",
        ),
    ] {
        assert!(
            report_of(&text, request).contains(cause),
            "{request}: no {cause:?} in {text}"
        );
    }

    let rest = run.interrupt();
    assert!(rest.contains("not back in the pool"), "{rest}");
}

/// The report that serves this request, with its line.
fn report_of<'a>(text: &'a str, request: &str) -> &'a str {
    let mut reports = text.split("  next: ");
    let serving = format!("serving    {request}");
    let report = reports.find(|report| report.contains(&serving));
    report.unwrap_or_else(|| panic!("nobody serves {request}: {text}"))
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

/// The twin: the same program and traffic, and nobody asked for reports. Only where a pool fails
/// somebody it speaks: of bugs 5 and 6, and of bug 2, which has the other connection of bug 5.
#[test]
fn without_the_variable_no_old_holder_is_reported_and_it_says_how_to_switch_it_on() {
    let variables = [
        ("DEBUG_DB_LEAKS", ""),
        // `close()` waits as long, before it is said.
        ("DB_LEAK_WAIT", "1s"),
        ("DB_LEAK_ESCALATE", "off"),
    ];
    let mut run = Program::example().start(&variables);
    let mut text = run.read_until("DEBUG_DB_LEAKS=true cargo run --example leaky_service");
    let now = run.get_until(&text, "/leaks", "× overdue");
    let known = reported_lines(&now, FILE);
    assert!(known.len() > 3, "known, when asked for: {now}");
    for pool in ["statistics", "ledger"] {
        if !text.contains(&format!("pool \"{pool}\" exhausted")) {
            text += &run.read_until(&format!("pool \"{pool}\" exhausted"));
        }
    }

    let rest = run.interrupt();
    // The way out waits for the holders: that is a finding which speaks at any detail.
    let (served, closing) = rest
        .split_once("Closing the pool")
        .expect("it closes the pool");
    text += served;
    let marks = marked_lines(SOURCE);
    assert_eq!(
        reported_lines(&text, FILE),
        [marks[1], marks[4], marks[5]],
        "{text}"
    );
    assert!(
        closing.contains("docs/findings/close_blocked.md"),
        "{closing}"
    );
}
