//! The table of environment variables.
//!
//! Responsible for names, defaults, sentences and parsers, in one place: the documentation is tested
//! against it. Not responsible for reading the environment.

use std::time::Duration;

use super::{Config, Detail, Threshold, Unwinder};

/// An environment variable that leaktrace reads.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it may be set to.
    pub values: &'static str,
    /// What counts when it is unset or empty.
    pub default: &'static str,
    /// What it decides, in one sentence.
    pub meaning: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Option<()>,
}

pub(super) const DETAIL_VALUES: &str = "true, 1, on, yes, backtrace | location | false, 0, off, no";
pub(super) const UNWINDER_VALUES: &str = "auto | portable";
const DURATION: &str = "a duration above zero such as 10s, 500ms, 2m";
const DURATION_OR_OFF: &str = "a duration above zero such as 10s, 500ms, 2m, or off";

/// Every environment variable that leaktrace reads, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "DEBUG_DB_LEAKS",
        values: DETAIL_VALUES,
        default: "location",
        meaning: "How much is recorded of each checkout, and whether old holders are reported.",
        set: |config, value| parse_detail(value).map(|v| config.detail = v),
    },
    Variable {
        name: "DB_LEAK_THRESHOLD",
        values: "a duration above zero such as 10s, 500ms, 2m, or auto",
        default: "auto",
        meaning: "The hold time beyond which a holder is overdue; auto is half of the pool's \
                  acquire_timeout, at most 10s and at least 1s.",
        set: |config, value| {
            config.threshold = if value.eq_ignore_ascii_case("auto") {
                Threshold::Auto
            } else {
                Threshold::Fixed(parse_duration(value)?)
            };
            Some(())
        },
    },
    Variable {
        name: "DB_LEAK_IDLE_IN_TRANSACTION",
        values: DURATION_OR_OFF,
        default: "5s",
        meaning: "How long a transaction may be known to be idle; never above the threshold.",
        set: |config, value| parse_or_off(value).map(|v| config.idle_in_transaction = v),
    },
    Variable {
        name: "DB_LEAK_WAIT",
        values: DURATION,
        default: "1s",
        meaning: "An acquire that waits this long means that the pool is exhausted.",
        set: |config, value| parse_duration(value).map(|v| config.wait = v),
    },
    Variable {
        name: "DB_LEAK_ESCALATE",
        values: DURATION_OR_OFF,
        default: "10m",
        meaning: "After an exhaustion at location: raise the detail to backtrace for this long.",
        set: |config, value| parse_or_off(value).map(|v| config.escalate = v),
    },
    Variable {
        name: "DB_LEAK_REPORT_INTERVAL",
        values: DURATION,
        default: "60s",
        meaning: "The least time between two reports of one group.",
        set: |config, value| parse_duration(value).map(|v| config.report_interval = v),
    },
    Variable {
        name: "DB_LEAK_STRICT",
        values: "true, 1, on, yes | false, 0, off, no",
        default: "false",
        meaning: "A nested checkout and a commit that saved nothing become errors; for tests.",
        set: |config, value| parse_bool(value).map(|v| config.strict = v),
    },
    Variable {
        name: "DB_LEAK_WITNESS",
        values: "true, 1, on, yes | false, 0, off, no",
        default: "true",
        meaning: "The server may be asked, over a connection beside the pool, what a reported holder \
                  does and who blocks it.",
        set: |config, value| parse_bool(value).map(|v| config.witness = v),
    },
    Variable {
        name: "DB_LEAK_UNWINDER",
        values: UNWINDER_VALUES,
        default: "auto",
        meaning: "How stacks are walked at backtrace; auto is the fast walk where it works.",
        set: |config, value| parse_unwinder(value).map(|v| config.unwinder = v),
    },
];

fn parse_bool(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Some(true),
        "false" | "0" | "off" | "no" => Some(false),
        _ => None,
    }
}

pub(super) fn parse_detail(value: &str) -> Option<Detail> {
    match value.to_ascii_lowercase().as_str() {
        "backtrace" => Some(Detail::Backtrace),
        "location" => Some(Detail::Location),
        other => parse_bool(other).map(|on| if on { Detail::Backtrace } else { Detail::Off }),
    }
}

pub(super) fn parse_unwinder(value: &str) -> Option<Unwinder> {
    match value.to_ascii_lowercase().as_str() {
        "auto" => Some(Unwinder::Auto),
        "portable" => Some(Unwinder::Portable),
        _ => None,
    }
}

fn parse_duration(value: &str) -> Option<Duration> {
    humantime::parse_duration(value)
        .ok()
        .filter(|duration| !duration.is_zero())
}

fn parse_or_off(value: &str) -> Option<Option<Duration>> {
    match parse_bool(value) {
        Some(false) => Some(None),
        _ => parse_duration(value).map(Some),
    }
}
