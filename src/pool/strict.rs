//! The errors of strict mode.
//!
//! Responsible for their words. Not responsible for noticing the mistakes.

use sqlx::Error;

use crate::site::Location;

/// A mistake that strict mode makes into an error: the source of a [`sqlx::Error::AnyDriverError`].
///
/// See [`Config::strict`](crate::Config::strict); meant for tests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StrictError {
    /// The transaction was aborted by a failed statement, so its commit would have saved nothing.
    #[error(
        "strict mode: the transaction was aborted by a failed statement: its commit would save nothing"
    )]
    NothingSaved,
    /// A connection was asked for while this task or request holds one of the same pool.
    #[error("strict mode: a second connection was asked for while one is held, taken at {}", .held.as_ref().map_or_else(|| "an unknown line".to_string(), ToString::to_string))]
    NestedCheckout {
        /// The line that took the one that is held.
        held: Option<Location>,
    },
}

impl StrictError {
    pub(super) fn error(self) -> Error {
        Error::AnyDriverError(Box::new(self))
    }
}
