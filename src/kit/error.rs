//! Why a pool could not be opened.
//!
//! Responsible for [`ConnectError`] and its words. Not responsible for faults of TLS: see `tls`.

use std::fmt;
use std::time::Duration;

use sqlx::Error;

use super::tls::TlsFault;
use crate::ConfigError;

/// Why a pool could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting is wrong.
    Config(ConfigError),
    /// TLS failed; which way.
    Tls {
        /// The host and port.
        place: String,
        /// What is wrong.
        fault: TlsFault,
        /// In the words of sqlx.
        source: Error,
    },
    /// The server refused, or did not answer.
    Failed {
        /// The host and port.
        place: String,
        /// How often it was tried.
        tries: u32,
        /// In the words of sqlx; `PoolTimedOut` when no try was answered in time.
        source: Error,
    },
    /// The server took a connection, and not as many as are to be there from the start.
    WarmUp(WarmUp),
}

/// How far the warm-up of a pool came. `Display` says what to change.
#[derive(Debug)]
pub struct WarmUp {
    pub(super) place: String,
    pub(super) opened: u32,
    pub(super) wanted: u32,
    pub(super) limit: Duration,
    /// The variables.
    pub(super) min: String,
    pub(super) acquire: String,
    pub(super) source: Error,
}

impl WarmUp {
    /// How many connections were opened; 0 where
    /// [`after_connect`](crate::PoolOptions::after_connect) was replaced by hand, which counts them.
    pub fn opened(&self) -> u32 {
        self.opened
    }

    /// How many were to be there.
    pub fn wanted(&self) -> u32 {
        self.wanted
    }
}

impl fmt::Display for WarmUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            opened,
            wanted,
            min,
            acquire,
            source,
            ..
        } = self;
        let limit = humantime::format_duration(self.limit);
        let count = match opened {
            0 => format!("not all of {wanted}"),
            opened => format!("{opened} of {wanted}"),
        };
        write!(
            f,
            "{place}: {count} connections were opened within the acquire timeout ({limit}): "
        )?;
        match source {
            Error::PoolTimedOut => write!(f, "no answer by then; raise {acquire}")?,
            Error::Database(error) if error.is_transient_in_connect_phase() => {
                write!(f, "{error}; let the server take more")?;
            }
            source => write!(f, "{source}; mend that")?,
        }
        match wanted {
            1 => Ok(()),
            _ => write!(f, ", or lower {min} ({wanted})"),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Config(error) => error.fmt(f),
            ConnectError::Tls {
                place,
                fault,
                source,
            } => write!(f, "{place}: {} ({source})", fault.explain()),
            ConnectError::Failed {
                place,
                tries,
                source,
            } => {
                let times = if *tries == 1 { "try" } else { "tries" };
                write!(
                    f,
                    "{place}: no connection after {tries} {times}: {}",
                    said(source)
                )?;
                match remedy(source) {
                    Some(remedy) => write!(f, "; {remedy}"),
                    None => Ok(()),
                }
            }
            ConnectError::WarmUp(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConnectError::Config(error) => Some(error),
            ConnectError::Tls { source, .. } | ConnectError::Failed { source, .. } => Some(source),
            ConnectError::WarmUp(error) => Some(&error.source),
        }
    }
}

impl From<ConfigError> for ConnectError {
    fn from(error: ConfigError) -> Self {
        ConnectError::Config(error)
    }
}

/// What an error says, where sqlx would speak of a pool that there is not yet.
pub(super) fn said(error: &Error) -> String {
    match error {
        Error::PoolTimedOut => "no answer within the connect timeout".to_string(),
        error => error.to_string(),
    }
}

fn remedy(error: &Error) -> Option<&'static str> {
    let Error::Database(error) = error else {
        return None;
    };
    let text = error.message();
    text.contains("startup parameter").then_some(
        "a pooler stands in between and refuses the time limits of the server: let it ignore \
         `options`, or set them with ALTER ROLE … SET and not here",
    )
}

/// Whether another try may help.
pub(super) fn is_transient(error: &Error) -> bool {
    match error {
        Error::Database(error) => error.is_transient_in_connect_phase(),
        Error::Io(_) | Error::PoolTimedOut => TlsFault::of(error).is_none(),
        _ => false,
    }
}
