//! Finds where a statement begins to say what nobody may read, outside of any literal.
//!
//! Responsible for statements whose values need no quotes (`PRAGMA key = secret`, `SET app.token TO
//! secret`, the data lines after `COPY … FROM STDIN`) and for those that carry passwords: of them,
//! only the first keywords are shown. Not responsible for literals, see `mask`.

use super::token::{Kind, Token};

/// Follows one reading's tokens through its statements.
#[derive(Debug)]
pub(super) struct Secrecy(State);

#[derive(Debug)]
enum State {
    /// Before a statement's first word.
    Start,
    /// In a statement that hides nothing but literals.
    Open,
    /// After `CREATE`, `ALTER`, `DROP`: what kind of object?
    Object,
    /// After `START`: a transaction, or a replica with its password?
    Starting,
    /// After `SET` or `PRAGMA`: the name is shown, the value is not.
    Setting,
    /// After the name, or a part of it.
    Named,
    /// After a dot in the name.
    Dotted,
    Copy,
}

/// Kinds of objects whose definition holds values only as literals. Anything else is hidden: a kind
/// nobody thought of must not leak.
const HARMLESS: &[&str] = &[
    "TABLE",
    "INDEX",
    "UNIQUE",
    "VIEW",
    "MATERIALIZED",
    "SCHEMA",
    "TYPE",
    "DOMAIN",
    "SEQUENCE",
    "TRIGGER",
    "EXTENSION",
    "COLLATION",
];

/// Words that may stand between `CREATE` and the kind of object.
const MODIFIERS: &[&str] = &[
    "OR",
    "REPLACE",
    "TEMP",
    "TEMPORARY",
    "UNLOGGED",
    "GLOBAL",
    "LOCAL",
    "IF",
    "NOT",
    "EXISTS",
    "FULLTEXT",
    "SPATIAL",
    "CONSTRAINT",
    "ONLINE",
    "OFFLINE",
    "IGNORE",
    "RECURSIVE",
];

/// Statements that are about access or hold connection data.
const HIDDEN: &[&str] = &[
    "GRANT",
    "REVOKE",
    "ATTACH",
    "CHANGE",
    "RENAME",
    "CONNECT",
    "IDENTIFIED",
];

fn is_one_of(word: &str, list: &[&str]) -> bool {
    list.iter().any(|other| word.eq_ignore_ascii_case(other))
}

impl Secrecy {
    pub(super) fn new() -> Self {
        Self(State::Start)
    }

    /// Takes the next token; returns where the secret begins, if it begins here. From there on
    /// nothing is shown, to the end of the text: where such a statement ends depends on the reading.
    pub(super) fn begins(&mut self, token: Token, text: &str) -> Option<usize> {
        if matches!(token.kind, Kind::Space | Kind::Comment) {
            return None;
        }
        if token.kind == Kind::Semicolon {
            self.0 = State::Start;
            return None;
        }
        let piece = &text[token.start..token.end];
        let word = if token.kind == Kind::Word { piece } else { "" };
        let mut secret = None;
        match self.0 {
            State::Open => {}
            State::Start if piece == "(" => {}
            State::Start => {
                if is_one_of(word, HIDDEN) {
                    secret = Some(token.end);
                }
                self.0 = if is_one_of(word, &["CREATE", "ALTER", "DROP"]) {
                    State::Object
                } else if is_one_of(word, &["SET", "PRAGMA"]) {
                    State::Setting
                } else if is_one_of(word, &["START"]) {
                    State::Starting
                } else if is_one_of(word, &["COPY"]) {
                    State::Copy
                } else {
                    State::Open
                };
            }
            State::Object if is_one_of(word, MODIFIERS) => {}
            State::Object if is_one_of(word, HARMLESS) => self.0 = State::Open,
            State::Object => secret = Some(token.end),
            State::Starting if is_one_of(word, &["TRANSACTION"]) => self.0 = State::Open,
            State::Starting => secret = Some(token.end),
            State::Setting
                if is_one_of(
                    word,
                    &["LOCAL", "SESSION", "GLOBAL", "PERSIST", "PERSIST_ONLY"],
                ) => {}
            State::Setting
                if is_one_of(word, &["TRANSACTION", "CHARACTERISTICS", "CONSTRAINTS"]) =>
            {
                self.0 = State::Open;
            }
            State::Setting if piece == "@" => {}
            State::Setting | State::Dotted => self.0 = State::Named,
            State::Named if piece == "." => self.0 = State::Dotted,
            State::Named => secret = Some(token.start),
            State::Copy => {
                if is_one_of(word, &["STDIN"]) {
                    secret = Some(token.end);
                }
            }
        }
        secret
    }
}
