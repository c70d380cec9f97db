//! The error of a transaction that is gone.
//!
//! Responsible for its words. Not responsible for noticing it: see `transaction`.

use sqlx::Error;

/// The transaction was rolled back when a nested `begin` on it was cancelled or refused, or a
/// [sealed](crate::Transaction::seal) one was ended by text.
///
/// sqlx 0.9 rolls the *outer* transaction back then and goes on in autocommit. leaktrace refuses
/// further statements and the commit instead, with this as the source of an
/// [`sqlx::Error::AnyDriverError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this transaction is gone: a nested begin was cancelled or refused and took it along, and nothing of it is saved, or its COMMIT or ROLLBACK was sent as text; begin again"
)]
pub struct DoomedTransaction;

impl DoomedTransaction {
    pub(super) fn error() -> Error {
        Error::AnyDriverError(Box::new(DoomedTransaction))
    }
}
