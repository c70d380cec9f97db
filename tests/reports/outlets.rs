//! Every way by which something leaves: texts, `Debug`, JSON, events of the log.

use leaktrace::{Finding, Leaks, Pool};
use sqlx::Database;

use crate::ground::Watched;
use crate::support::events::Captured;
use crate::support::{Capture, Events};

/// One text that somebody could read, and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    pub(crate) from: &'static str,
    pub(crate) text: String,
}

fn out(from: &'static str, text: String) -> Out {
    Out { from, text }
}

/// Everything that is said of this monitor now, and was said to its sinks and its log.
pub(crate) fn everything<DB: Database>(
    w: &Watched<DB>,
    leaks: &Leaks,
    events: &Events,
) -> Vec<Out> {
    let report = w.monitor.report();
    let holders = w.monitor.holders();
    let waiters = w.monitor.waiters();
    let mut outs = vec![
        out("report", report.to_string()),
        out("report, Debug", format!("{report:?}")),
        out(
            "report, JSON",
            serde_json::to_string(&report).expect("JSON"),
        ),
        out("holders, Debug", format!("{holders:?} {waiters:?}")),
        out(
            "holders, JSON",
            serde_json::to_string(&(holders, waiters)).expect("JSON"),
        ),
        out("leaks", leaks.to_string()),
        out("leaks, Debug", format!("{leaks:?}")),
        out("pool, Debug", debug_of(&w.pool)),
    ];
    outs.extend(said(&w.findings));
    outs.extend(logged(events));
    outs
}

fn debug_of<DB: Database>(pool: &Pool<DB>) -> String {
    format!("{pool:?} {:?} {:?}", pool.monitor(), pool.status())
}

fn said(findings: &Capture<Finding>) -> Vec<Out> {
    let mut outs = Vec::new();
    for finding in findings.all() {
        outs.push(out("finding", finding.to_string()));
        outs.push(out("headline", finding.headline.clone()));
        outs.push(out("finding, Debug", format!("{finding:?}")));
        outs.push(out(
            "finding, JSON",
            serde_json::to_string(&finding).expect("JSON"),
        ));
    }
    outs
}

fn logged(events: &Events) -> Vec<Out> {
    let mut outs = Vec::new();
    for Captured {
        message, fields, ..
    } in events.all()
    {
        outs.push(out("message", message));
        for (name, value) in fields {
            let from = match name.as_str() {
                "report" => "event, report",
                _ => "event, field",
            };
            outs.push(out(from, value));
        }
    }
    outs
}

/// Fails when anything hidden comes through raw, or a line is broken where one line is promised.
pub(crate) fn assert_harmless(outs: &[Out]) {
    for Out { from, text } in outs {
        let lines = !matches!(*from, "headline" | "message" | "event, field");
        let hidden = |c: char| {
            (c.is_control() && !(lines && c == '\n'))
                || matches!(u32::from(c), 0xAD | 0x61C | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xE0000..=0xE0FFF)
        };
        let found = text.chars().find(|c| hidden(*c));
        assert_eq!(found, None, "{from}: {text:?}");
    }
}

#[test]
fn what_is_hidden_is_found() {
    let is_refused = |from, text: &str| {
        std::panic::catch_unwind(|| assert_harmless(&[out(from, text.to_string())])).is_err()
    };
    assert!(is_refused("message", "two\nlines"));
    assert!(!is_refused("report", "two\nlines"));
    assert!(is_refused("report", "\u{202e}"));
    assert!(is_refused("report", "\u{1b}[31m"));
}
