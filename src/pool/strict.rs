//! The errors of strict mode.
//!
//! Responsible for their words. Not responsible for noticing the mistakes.

use sqlx::Error;

use crate::site::Location;

/// A mistake that strict mode makes into an error: the source of a [`sqlx::Error::AnyDriverError`].
///
/// See [`Config::strict`](crate::Config::strict); meant for tests.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sqlx::Error> {
/// use leaktrace::{Config, Monitor, StrictError};
///
/// let monitor = Monitor::new(Config::default().strict(true));
/// let pool = monitor.watch("orders", sqlx::SqlitePool::connect_lazy("sqlite::memory:")?);
/// let first = pool.acquire().await?;
/// let Err(sqlx::Error::AnyDriverError(error)) = pool.acquire().await else {
///     panic!("a second one while the first is held");
/// };
/// assert!(error.is::<StrictError>());
/// # drop(first);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StrictError {
    /// PostgreSQL had aborted the transaction after a failed statement, so its commit would have
    /// saved nothing and said `Ok`.
    #[error(
        "strict mode: a failed statement had aborted the transaction: its commit would save nothing"
    )]
    NothingSaved,
    /// A connection was asked for while this task or request holds one of the same pool on which no
    /// statement runs: as many of these as the pool has connections wait for each other for ever.
    #[error("strict mode: nested checkout: {} asks for a connection while the one taken {} is held and no statement runs on it", line(.asked, ""), line(.held, "at "))]
    NestedCheckout {
        /// The line that took the one that is held.
        held: Option<Location>,
        /// The line that asks for another one.
        asked: Option<Location>,
    },
}

impl StrictError {
    pub(super) fn error(self) -> Error {
        Error::AnyDriverError(Box::new(self))
    }
}

fn line(site: &Option<Location>, before: &str) -> String {
    match site {
        Some(site) => format!("{before}{site}"),
        None => format!(
            "{}a statement on the pool",
            if before.is_empty() { "" } else { "by " }
        ),
    }
}
