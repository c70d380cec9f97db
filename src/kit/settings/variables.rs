//! The table of variables, and how they are looked up.
//!
//! Responsible for names, prefixes, parsers and sentences, in one place: the documentation is tested
//! against it. Not responsible for what a setting does.

use std::time::Duration;

use super::{Key, PoolSettings};
use crate::ConfigError;
use crate::kit::link::{Link, shown};

/// A variable that [`PoolSettings`] reads: `DB_` or `DATABASE_` and its name, or `ORDERS_DB_` and
/// its name for a service `orders`.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name, without a prefix.
    pub name: &'static str,
    /// What it may be set to.
    pub values: &'static str,
    /// What counts when it is unset or empty.
    pub default: &'static str,
    /// What it decides, in one sentence.
    pub meaning: &'static str,
    pub(super) key: Key,
    set: fn(&mut PoolSettings, &str, &str) -> Result<(), Wrong>,
}

/// What is wrong with a value.
pub(super) enum Wrong {
    /// It cannot be read; the table says what is allowed.
    Value,
    /// Something else, with its own words.
    Other(ConfigError),
}

const COUNT: &str = "a whole number above zero";
const COUNT_OR_ZERO: &str = "a whole number";
const TIME: &str = "seconds above zero, or a duration such as 30s, 500ms, 2m";
const TIME_OR_OFF: &str = "seconds, or a duration such as 30s, 500ms, 2m, or off";
const BOOL: &str = "true, 1, on, yes | false, 0, off, no";

/// Every variable, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "URL",
        values: "a URL such as postgres://user@host/database",
        default: "",
        meaning: "The database. Shown without its password everywhere.",
        key: Key::Url,
        set: |settings, variable, value| {
            settings.url = Some(Link::parse(variable, value).map_err(Wrong::Other)?);
            Ok(())
        },
    },
    Variable {
        name: "PASSWORD_FILE",
        values: "a file that can be read",
        default: "",
        meaning: "The file with the password, for a URL without one; its last line end is cut off.",
        key: Key::PasswordFile,
        set: |settings, variable, value| {
            let password = std::fs::read_to_string(value).map_err(|error| {
                let allowed = format!("a file that can be read ({error})");
                Wrong::Other(ConfigError::new(
                    variable.to_string(),
                    shown(value),
                    allowed,
                ))
            })?;
            settings.password_file = Some((value.to_string(), super::Secret::new(&password)));
            Ok(())
        },
    },
    Variable {
        name: "MAX_CONNECTIONS",
        values: COUNT,
        default: "10",
        meaning: "The most connections.",
        key: Key::Max,
        set: |settings, _, value| count(value, 1).map(|count| settings.max = count),
    },
    Variable {
        name: "MIN_CONNECTIONS",
        values: COUNT_OR_ZERO,
        default: "0",
        meaning: "How many connections are kept open.",
        key: Key::Min,
        set: |settings, _, value| count(value, 0).map(|count| settings.min = count),
    },
    Variable {
        name: "MAX_OVERFLOW",
        values: COUNT_OR_ZERO,
        default: "0",
        meaning: "How many more there may be for a while; they are closed after their use.",
        key: Key::Overflow,
        set: |settings, _, value| count(value, 0).map(|count| settings.overflow = count),
    },
    Variable {
        name: "CONNECT_TIMEOUT_SECS",
        values: TIME,
        default: "5s",
        meaning: "How long one try to connect at start-up may take; never above the acquire timeout.",
        key: Key::Connect,
        set: |settings, _, value| time(value).map(|time| settings.connect = Some(time)),
    },
    Variable {
        name: "ACQUIRE_TIMEOUT_SECS",
        values: TIME,
        default: "10s",
        meaning: "How long an acquire may take, connecting included.",
        key: Key::Acquire,
        set: |settings, _, value| time(value).map(|time| settings.acquire = time),
    },
    Variable {
        name: "IDLE_TIMEOUT_SECS",
        values: TIME_OR_OFF,
        default: "10m",
        meaning: "After how much idle time a connection is closed; never above the lifetime.",
        key: Key::Idle,
        set: |settings, _, value| time_or_off(value).map(|time| settings.idle = Some(time)),
    },
    Variable {
        name: "MAX_LIFETIME_SECS",
        values: TIME_OR_OFF,
        default: "30m",
        meaning: "At which age a connection is replaced; each at another moment of the last sixth.",
        key: Key::Lifetime,
        set: |settings, _, value| time_or_off(value).map(|time| settings.lifetime = Some(time)),
    },
    Variable {
        name: "STATEMENT_TIMEOUT_SECS",
        values: TIME_OR_OFF,
        default: "off",
        meaning: "After which time the server ends a statement. Not on SQLite.",
        key: Key::Statement,
        set: |settings, _, value| time_or_off(value).map(|time| settings.statement = time),
    },
    Variable {
        name: "IDLE_IN_TRANSACTION_TIMEOUT_SECS",
        values: TIME_OR_OFF,
        default: "off",
        meaning: "After which time the server ends a connection that is idle in a transaction. \
                  Not on MySQL and SQLite.",
        key: Key::IdleInTransaction,
        set: |settings, _, value| {
            time_or_off(value).map(|time| settings.idle_in_transaction = time)
        },
    },
    Variable {
        name: "LOCK_TIMEOUT_SECS",
        values: TIME_OR_OFF,
        default: "off",
        meaning: "How long a statement may wait for a lock; never above the statement timeout.",
        key: Key::Lock,
        set: |settings, _, value| time_or_off(value).map(|time| settings.lock = time),
    },
    Variable {
        name: "PREPARED_STATEMENTS",
        values: BOOL,
        default: "true",
        meaning: "Whether statements are prepared and kept; false behind a pooler in transaction mode.",
        key: Key::Prepared,
        set: |settings, _, value| boolean(value).map(|prepared| settings.prepared = prepared),
    },
    Variable {
        name: "TEST_BEFORE_ACQUIRE",
        values: BOOL,
        default: "true",
        meaning: "Whether a connection is tested before it is given out.",
        key: Key::Test,
        set: |settings, _, value| boolean(value).map(|test| settings.test = test),
    },
    Variable {
        name: "ALIVE_BYPASS_SECS",
        values: TIME_OR_OFF,
        default: "500ms",
        meaning: "For how long after it came back a connection counts as alive and is not tested.",
        key: Key::Alive,
        set: |settings, _, value| {
            time_or_off(value).map(|time| settings.alive = Some(time.unwrap_or_default()))
        },
    },
    Variable {
        name: "START_TRIES",
        values: COUNT,
        default: "5",
        meaning: "How often it is tried to connect at start-up.",
        key: Key::Tries,
        set: |settings, _, value| count(value, 1).map(|count| settings.tries = count),
    },
    Variable {
        name: "WARM_UP",
        values: BOOL,
        default: "false",
        meaning: "Whether the connections that are kept open are there before the start is over.",
        key: Key::WarmUp,
        set: |settings, _, value| boolean(value).map(|warm_up| settings.warm_up = warm_up),
    },
];

fn count(value: &str, least: u32) -> Result<u32, Wrong> {
    let count = value.parse().ok().filter(|count| *count >= least);
    count.ok_or(Wrong::Value)
}

fn boolean(value: &str) -> Result<bool, Wrong> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Ok(true),
        "false" | "0" | "off" | "no" => Ok(false),
        _ => Err(Wrong::Value),
    }
}

/// Plain seconds, or a duration with its unit.
fn any_time(value: &str) -> Result<Duration, Wrong> {
    let plain = value
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let read = if plain {
        let seconds = value.parse().ok();
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    } else {
        humantime::parse_duration(value).ok()
    };
    // What servers count in is milliseconds in 32 bits.
    read.filter(|time| time.as_millis() <= i32::MAX as u128)
        .ok_or(Wrong::Value)
}

fn time(value: &str) -> Result<Duration, Wrong> {
    any_time(value).and_then(|time| (!time.is_zero()).then_some(time).ok_or(Wrong::Value))
}

fn time_or_off(value: &str) -> Result<Option<Duration>, Wrong> {
    if matches!(value.to_ascii_lowercase().as_str(), "off" | "none" | "no") {
        return Ok(None);
    }
    // Zero is what servers call off.
    any_time(value).map(|time| (!time.is_zero()).then_some(time))
}

impl Variable {
    /// Reads a value that was found under that name.
    pub(super) fn apply(
        &self,
        settings: &mut PoolSettings,
        found_as: &str,
        value: &str,
    ) -> Result<(), ConfigError> {
        (self.set)(settings, found_as, value).map_err(|wrong| match wrong {
            Wrong::Value => ConfigError::new(found_as.to_string(), shown(value), self.values),
            Wrong::Other(error) => error,
        })?;
        settings.origins.insert(self.key, found_as.to_string());
        Ok(())
    }
}

/// The prefixes to look under, the first that has a value wins: `ORDERS_DB_`, `ORDERS_DATABASE_`,
/// `DB_`, `DATABASE_`.
pub(super) fn prefixes(service: Option<&str>) -> Vec<String> {
    let mut prefixes = Vec::new();
    if let Some(service) = service {
        let upper = |c: char| match c {
            _ if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
            _ => '_',
        };
        let service: String = service.chars().map(upper).collect();
        prefixes.extend([format!("{service}_DB_"), format!("{service}_DATABASE_")]);
    }
    prefixes.extend(["DB_".to_string(), "DATABASE_".to_string()]);
    prefixes
}
