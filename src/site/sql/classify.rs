//! Tells what a SQL text can do to the transaction of its connection.
//!
//! Responsible for one question: may the pool trust what it knows of the connection after this text,
//! or must it ask the server? Not responsible for what the text reads or writes.

use super::lexer::Lexer;
use super::reading::{Dialect, Reading, readings};
use super::token::Kind;

/// What a text does to a transaction. [`Verb::Unknown`] is the answer to every doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Begin,
    /// Ends it, and opens no other one.
    Commit,
    /// Ends it, and opens no other one.
    Rollback,
    /// `SAVEPOINT`, `RELEASE`, `ROLLBACK TO`. Outside of a transaction, SQLite's `SAVEPOINT` opens one
    /// and its `RELEASE` commits it.
    Savepoint,
    /// One statement that can neither open nor end a transaction.
    Plain,
    /// Several statements.
    Script,
    /// Anything else: whatever it says, it may leave a transaction open, or end one.
    Unknown,
}

/// A longer text is not read: asking the server costs less.
const READ_BYTES: usize = 64 * 1024;

/// Classifies a text of any of the three databases.
///
/// # Cost
/// Linear, no allocation; a text of more than 64 KiB is [`Verb::Unknown`] at once.
#[cfg(test)]
pub(crate) fn classify(sql: &str) -> Verb {
    classify_for(sql, Dialect::Unknown)
}

/// Classifies a text of a known database: fewer readings, so fewer doubts.
pub(crate) fn classify_for(sql: &str, dialect: Dialect) -> Verb {
    if sql.len() > READ_BYTES {
        return Verb::Unknown;
    }
    let mut readings = readings(sql, dialect).map(|reading| verb(sql, reading));
    let first = readings.next().unwrap_or(Verb::Unknown);
    if readings.all(|other| other == first) {
        first
    } else {
        Verb::Unknown
    }
}

/// Longest head of a statement that is looked at: `ROLLBACK TRANSACTION TO SAVEPOINT name`.
const HEAD: usize = 5;

fn verb(sql: &str, reading: Reading) -> Verb {
    // The first tokens, and how many there are in all.
    let mut head = [""; HEAD];
    let mut count = 0_usize;
    let mut ended = false;
    let mut parenthesised = false;
    for token in Lexer::new(sql, reading) {
        if token.open {
            return Verb::Unknown;
        }
        match token.kind {
            Kind::Space | Kind::Comment => {}
            Kind::Semicolon => ended = count > 0,
            _ if ended => return Verb::Script,
            _ => {
                let piece = &sql[token.start..token.end];
                // A query may stand in parentheses.
                if count == 0 && piece == "(" {
                    parenthesised = true;
                    continue;
                }
                if let Some(slot) = head.get_mut(count) {
                    *slot = piece;
                }
                count += 1;
            }
        }
    }
    if parenthesised {
        let query = is_one_of(head[0], &["SELECT", "VALUES", "TABLE", "WITH"]);
        return if query { Verb::Plain } else { Verb::Unknown };
    }
    if count > HEAD {
        long(&head)
    } else {
        short(&head[..count])
    }
}

fn is_one_of(word: &str, list: &[&str]) -> bool {
    list.iter().any(|other| word.eq_ignore_ascii_case(other))
}

/// Verbs of statements of any length.
fn long(head: &[&str]) -> Verb {
    let second = head.get(1).copied().unwrap_or_default();
    let third = head.get(2).copied().unwrap_or_default();
    match head.first().copied().unwrap_or_default() {
        word if is_one_of(word, PLAIN) => Verb::Plain,
        // What is explained may be run, and what `EXECUTE` runs is told elsewhere.
        word if is_one_of(word, &["EXPLAIN"]) => explained(&head[1..]),
        // `BEGIN ATOMIC`, `BEGIN NOT ATOMIC` and what else a block may begin with are no transaction.
        word if is_one_of(word, &["BEGIN"]) => {
            let known = second.is_empty()
                || is_one_of(second, BEGIN_WORDS)
                || (is_one_of(second, &["NOT"]) && is_one_of(third, &["DEFERRABLE"]));
            if known { Verb::Begin } else { Verb::Unknown }
        }
        word if is_one_of(word, &["START"]) && is_one_of(second, &["TRANSACTION"]) => Verb::Begin,
        _ => Verb::Unknown,
    }
}

const PLAIN: &[&str] = &[
    "SELECT", "INSERT", "UPDATE", "DELETE", "VALUES", "TABLE", "WITH", "MERGE", "REPLACE", "SHOW",
];

const BEGIN_WORDS: &[&str] = &[
    "WORK",
    "TRANSACTION",
    "DEFERRED",
    "IMMEDIATE",
    "EXCLUSIVE",
    "CONCURRENT",
    "ISOLATION",
    "READ",
    "DEFERRABLE",
];

/// `EXPLAIN` of a plain statement. With options in parentheses it is left in doubt.
fn explained(rest: &[&str]) -> Verb {
    for word in rest {
        if is_one_of(word, PLAIN) {
            return Verb::Plain;
        }
        if !is_one_of(
            word,
            &[
                "ANALYZE",
                "VERBOSE",
                "QUERY",
                "PLAN",
                "EXTENDED",
                "PARTITIONS",
            ],
        ) {
            break;
        }
    }
    Verb::Unknown
}

/// Verbs of statements that are wholly known; the others are left to [`long`].
fn short(head: &[&str]) -> Verb {
    let [first, rest @ ..] = head else {
        return Verb::Unknown;
    };
    let rest = match rest {
        [noise, rest @ ..] if is_one_of(noise, &["WORK", "TRANSACTION"]) => rest,
        rest => rest,
    };
    let commit = is_one_of(first, &["COMMIT", "END"]);
    if commit || is_one_of(first, &["ROLLBACK", "ABORT"]) {
        // `AND CHAIN` opens the next one, `PREPARED` is another transaction, `RELEASE` hangs up.
        let plain_end = match rest {
            [] => true,
            [and, no, chain] => {
                is_one_of(and, &["AND"]) && is_one_of(no, &["NO"]) && is_one_of(chain, &["CHAIN"])
            }
            _ => false,
        };
        return match rest {
            _ if plain_end && commit => Verb::Commit,
            _ if plain_end => Verb::Rollback,
            [to, ..] if is_one_of(first, &["ROLLBACK"]) && is_one_of(to, &["TO"]) => {
                Verb::Savepoint
            }
            _ => Verb::Unknown,
        };
    }
    if is_one_of(first, &["SAVEPOINT", "RELEASE"]) {
        return Verb::Savepoint;
    }
    long(head)
}
