//! The error of a transaction that is gone.
//!
//! Responsible for its words. Not responsible for noticing it: see `transaction`.

use sqlx::Error;

/// The transaction was rolled back when a nested `begin` on it was cancelled or refused.
///
/// sqlx 0.9 rolls the *outer* transaction back then and goes on in autocommit. leaktrace refuses
/// further statements and the commit instead, with this as the source of an
/// [`sqlx::Error::AnyDriverError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a nested begin was cancelled or refused and took this transaction with it: nothing of it is saved; begin again"
)]
pub struct DoomedTransaction;

impl DoomedTransaction {
    pub(super) fn error() -> Error {
        Error::AnyDriverError(Box::new(DoomedTransaction))
    }
}
