//! What may be known of a SQL text: its masked form and what it does to a transaction.
//!
//! Responsible for reading SQL without a database at hand. One tokenizer (`lexer`) serves both
//! questions. Not responsible for interning the result, nor for telling which database it is for.
//!
//! The rule behind everything here: the same text means different things to different servers, and
//! to one server under different settings (`'a\'` is a whole string to one and half of one to the
//! next). So a text is read in every way that its database allows (`reading`). A byte is shown only
//! if *no* reading calls it part of a value, and a verb is told only if *all* readings agree on it.

#[cfg(test)]
mod canary;
mod classify;
mod lexer;
mod mask;
mod reading;
mod secrecy;
#[cfg(test)]
mod tests;
mod token;

#[cfg(test)]
pub(crate) use classify::classify;
pub(crate) use classify::{Verb, classify_for};
#[cfg(test)]
pub(crate) use mask::mask_sql;
pub(crate) use mask::mask_sql_for;
pub(crate) use reading::Dialect;
