//! The settings that are a choice among named ones.
//!
//! Responsible for their values, their names and what they mean. Not responsible for where they are
//! read from (`variables`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::ConfigError;
use super::variables::{DETAIL_VALUES, UNWINDER_VALUES, parse_detail, parse_unwinder};

/// How much is recorded of each checkout.
///
/// Can be changed while running, with [`Monitor::set_detail`](crate::Monitor::set_detail).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detail {
    /// The kill switch: no holder is recorded. Counters and the rollback guarantee stay.
    Off,
    /// Who, where, since when, for which request. Silent about a holder that is merely old.
    #[default]
    Location,
    /// Also the stack of each checkout; holders past their threshold are reported.
    Backtrace,
}

impl Detail {
    pub(super) const ALL: [Detail; 3] = [Detail::Off, Detail::Location, Detail::Backtrace];

    pub(crate) fn from_index(index: u8) -> Self {
        Self::ALL
            .into_iter()
            .find(|detail| *detail as u8 == index)
            .unwrap_or_default()
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Detail::Off => "off",
            Detail::Location => "location",
            Detail::Backtrace => "backtrace",
        })
    }
}

impl FromStr for Detail {
    type Err = ConfigError;

    fn from_str(value: &str) -> Result<Self, ConfigError> {
        parse_detail(value).ok_or_else(|| ConfigError::new("detail", value, DETAIL_VALUES))
    }
}

/// The hold time beyond which a holder is overdue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threshold {
    /// Half of the pool's `acquire_timeout`, at most 10 s and at least 1 s.
    #[default]
    Auto,
    /// The same for every pool.
    Fixed(Duration),
}

impl Threshold {
    /// The hold time this means for a pool with that `acquire_timeout`.
    pub(crate) fn for_pool(self, acquire_timeout: Duration) -> Duration {
        match self {
            Threshold::Fixed(threshold) => threshold,
            Threshold::Auto => {
                (acquire_timeout / 2).clamp(Duration::from_secs(1), Duration::from_secs(10))
            }
        }
    }
}

impl From<Duration> for Threshold {
    fn from(threshold: Duration) -> Self {
        Threshold::Fixed(threshold)
    }
}

impl PartialEq<Duration> for Threshold {
    fn eq(&self, other: &Duration) -> bool {
        matches!(self, Threshold::Fixed(threshold) if threshold == other)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threshold::Auto => f.write_str("auto"),
            Threshold::Fixed(threshold) => humantime::format_duration(*threshold).fmt(f),
        }
    }
}

/// How stacks are walked at [`Detail::Backtrace`].
///
/// Both find the same frames. The fast walk exists on x86_64 Linux with glibc and costs nanoseconds;
/// where it does not know the way, the portable one is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unwinder {
    /// The fast walk where it works, else the portable one.
    #[default]
    Auto,
    /// The system's unwinder, always: microseconds for each stack, and a lock that all threads share.
    Portable,
}

impl fmt::Display for Unwinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unwinder::Auto => "auto",
            Unwinder::Portable => "portable",
        })
    }
}

impl FromStr for Unwinder {
    type Err = ConfigError;

    fn from_str(value: &str) -> Result<Self, ConfigError> {
        parse_unwinder(value).ok_or_else(|| ConfigError::new("unwinder", value, UNWINDER_VALUES))
    }
}
