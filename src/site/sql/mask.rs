//! Makes a SQL text fit to be read by anybody: every value becomes `?`.
//!
//! Responsible for what may survive: keywords, identifiers, operators, bind parameters, `NULL` and
//! the booleans. Not responsible for cutting into tokens (`lexer`) nor for statements that are
//! secret as a whole (`secrecy`).
//!
//! - `"…"` is an identifier to PostgreSQL, a string to MySQL, and either to SQLite, which falls back
//!   to a string when it knows no such column. No look at the text can tell. So it is masked, unless
//!   the text is known to be PostgreSQL's and what is quoted looks like a plain name.
//! - Comments vanish, the conditional ones of MySQL too: people put values in them.
//! - A text is cut *after* masking, so that a cut never opens a literal.

use super::lexer::Lexer;
use super::reading::{Dialect, readings};
use super::secrecy::Secrecy;
use super::token::{Kind, Token, is_space};
use crate::site::text::escape_text;

/// Longest masked text in characters, an ellipsis not counted.
pub(crate) const MASKED_CHARS: usize = 200;

/// Only so much of a text is read, in bytes. Everything beyond could be shown only if what stands
/// before it were nearly all values; a bulk insert of a megabyte need not be read for its first line.
const READ_BYTES: usize = 16 * 1024;

/// Masks a text of any of the three databases.
///
/// # Cost
/// Linear, and bounded: at most ten passes over the first 16 KiB, one for a text without backslashes,
/// comments and other characters that databases disagree about.
#[cfg(test)]
pub(crate) fn mask_sql(sql: &str) -> String {
    mask_sql_for(sql, Dialect::Unknown)
}

/// Masks a text of a known database. Shows more of it than [`mask_sql`]: PostgreSQL's quoted names
/// and its operators that begin with `#`.
pub(crate) fn mask_sql_for(sql: &str, dialect: Dialect) -> String {
    let mut limit = sql.len().min(READ_BYTES);
    while !sql.is_char_boundary(limit) {
        limit -= 1;
    }
    let read = &sql[..limit];
    let (labels, secret) = label(read, dialect);
    let mut shown = fold_lists(&show(&read[..secret], &labels));
    let more = sql[secret..].bytes().any(|byte| !is_space(byte));
    if more && !shown.ends_with('…') {
        shown.push_str(if shown.is_empty() { "…" } else { " …" });
    }
    escape_text(&shown, MASKED_CHARS).into_owned()
}

/// What a byte is in the reading that shows the least of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Shown,
    /// Part of a value.
    Masked,
    /// Part of a comment.
    Dropped,
}

/// A label for each byte, and the first position from which nothing may be shown.
fn label(text: &str, dialect: Dialect) -> (Vec<Label>, usize) {
    let mut labels = vec![Label::Shown; text.len()];
    let mut secret = text.len();
    for reading in readings(text, dialect) {
        let mut secrecy = Secrecy::new();
        for token in Lexer::new(text, reading) {
            if token.start >= secret {
                break;
            }
            let least = judge(token, text, dialect);
            if least > Label::Shown {
                for label in &mut labels[token.start..token.end] {
                    *label = least.max(*label);
                }
            }
            if let Some(begin) = secrecy.begins(token, text) {
                secret = secret.min(begin);
            }
        }
    }
    (labels, secret)
}

fn judge(token: Token, text: &str, dialect: Dialect) -> Label {
    let piece = &text[token.start..token.end];
    match token.kind {
        Kind::Comment => Label::Dropped,
        Kind::Text | Kind::Number => Label::Masked,
        Kind::Double if dialect == Dialect::Postgres && !token.open && is_plain_name(piece) => {
            Label::Shown
        }
        Kind::Double => Label::Masked,
        // An open one may be no identifier at all, but an operator before a string.
        Kind::Quoted if token.open || piece.contains(['\'', '"', '\\']) => Label::Masked,
        Kind::Quoted | Kind::Word | Kind::Bind | Kind::Space | Kind::Semicolon | Kind::Mark => {
            Label::Shown
        }
    }
}

/// Whether a double-quoted piece holds what could also be written without quotes.
fn is_plain_name(piece: &str) -> bool {
    let name = piece.trim_matches('"');
    piece.len() == name.len() + 2
        && name.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && name
            .chars()
            .all(|char| char.is_alphanumeric() || matches!(char, '_' | '$'))
}

/// Writes what the labels allow, white space folded.
fn show(text: &str, labels: &[Label]) -> String {
    let mut out = String::with_capacity(text.len().min(1024));
    let mut blank = false;
    // Whether the last character written is the `?` of a value.
    let mut masked = false;
    for (at, char) in text.char_indices() {
        let glued_word = |last: char| last.is_alphanumeric() || matches!(last, '_' | '$' | '?');
        match labels[at] {
            Label::Dropped => blank = true,
            Label::Masked => {
                if masked && !blank {
                    continue;
                }
                if !out.is_empty() && (blank || out.ends_with(glued_word)) {
                    out.push(' ');
                }
                out.push('?');
                (blank, masked) = (false, true);
            }
            Label::Shown if char.is_ascii() && is_space(char as u8) => blank = true,
            Label::Shown => {
                if !out.is_empty() && (blank || (masked && glued_word(char))) {
                    out.push(' ');
                }
                out.push(char);
                (blank, masked) = (false, false);
            }
        }
    }
    out
}

/// Shortens `IN (?, ?, ?)` to `IN (?, …)`, and `VALUES (?, ?), (?, ?)` to its first row: else each
/// length of a list would be another text.
fn fold_lists(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('(') {
        let (before, group) = rest.split_at(open);
        out.push_str(before);
        let Some((items, len)) = group_of_placeholders(group) else {
            out.push('(');
            rest = &group[1..];
            continue;
        };
        let first_item = group[1..]
            .split([',', ')'])
            .next()
            .unwrap_or_default()
            .trim();
        let inside_in = last_word_is(&out, "IN");
        rest = &group[len..];
        if inside_in && items > 1 {
            out.push('(');
            out.push_str(first_item);
            out.push_str(if group[..len].ends_with(')') {
                ", …)"
            } else {
                ", …"
            });
            continue;
        }
        out.push_str(&group[..len]);
        if last_word_is(before, "VALUES") {
            let mut rows = 0;
            while let Some(next) = rest.trim_start().strip_prefix(',').map(str::trim_start) {
                let Some((_, len)) = group_of_placeholders(next) else {
                    break;
                };
                rest = &next[len..];
                rows += 1;
            }
            if rows > 0 {
                out.push_str(", …");
            }
        }
    }
    out.push_str(rest);
    out
}

fn last_word_is(text: &str, word: &str) -> bool {
    let text = text.trim_end();
    let start = text
        .rfind(|char: char| !char.is_alphanumeric() && char != '_')
        .map_or(0, |at| {
            at + text[at..].chars().next().map_or(0, char::len_utf8)
        });
    text[start..].eq_ignore_ascii_case(word)
}

/// The number of items and the length of a group at the start of `text`, if nothing but
/// placeholders is in it. The end of the text may stand for its end.
fn group_of_placeholders(text: &str) -> Option<(usize, usize)> {
    let inside = text.strip_prefix('(')?;
    let end = inside.find(|char: char| {
        !(char.is_ascii_alphanumeric()
            || matches!(char, '?' | '$' | ':' | '@' | '_' | ',' | ' ' | '-' | '+'))
    });
    let (inside, len) = match end {
        Some(end) if inside[end..].starts_with(')') => (&inside[..end], end + 2),
        Some(_) => return None,
        None => (inside, text.len()),
    };
    let mut items = 0;
    for item in inside.split(',') {
        let item = item.trim().trim_start_matches(['-', '+']);
        let placeholder = item.starts_with(['?', '$', ':', '@']) && !item.contains(' ');
        let cut = end.is_none() && item.is_empty();
        if !placeholder && !cut {
            return None;
        }
        items += 1;
    }
    Some((items, len))
}
