//! What a SQL text is made of.
//!
//! Responsible for the names of the pieces only, see `lexer` for how they are found.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Space,
    Comment,
    /// A keyword or an identifier without quotes.
    Word,
    Number,
    /// A string of any form, prefix included.
    Text,
    /// `"…"`: a string or an identifier.
    Double,
    /// A quoted identifier: backticks or brackets.
    Quoted,
    /// A bind parameter.
    Bind,
    Semicolon,
    /// Any other single character.
    Mark,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
    /// The text ended before the token did.
    pub(super) open: bool,
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0)
}
