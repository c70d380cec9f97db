//! The ways in which one SQL text can be cut into tokens.
//!
//! Responsible for the list of readings per database, and for leaving out those that make no
//! difference to a given text: most texts need a single pass. Not responsible for the cutting
//! itself, see `lexer`.

/// Whose SQL it is. Knowing it shows more and never leaks more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Any of the three: the readings of all of them apply.
    Unknown,
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    Sqlite,
}

/// What a MySQL `/*! … */`, MariaDB `/*M! … */` or hint `/*+ … */` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conditional {
    /// A comment like any other.
    Comment,
    /// Meant for a newer server: skipped, with comments nested in it.
    Skipped,
    /// Code, in which a string may contain `*/`.
    Code,
}

/// One consistent way to cut a text into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// A backslash escapes in `'…'`.
    pub(super) single_escapes: bool,
    /// A backslash escapes in `"…"`.
    pub(super) double_escapes: bool,
    /// `E'…'` has backslash escapes, whatever holds for `'…'`.
    pub(super) e_strings: bool,
    /// A string on the line after an `E'…'` goes on with it, escapes included.
    pub(super) e_continues: bool,
    /// `$$…$$` and `$tag$…$tag$` are strings.
    pub(super) dollar_strings: bool,
    /// `/* /* */ */` is one comment.
    pub(super) nested_comments: bool,
    /// `#` begins a comment.
    pub(super) hash_comments: bool,
    /// `--` begins a comment only when white space or the end follows.
    pub(super) dashes_need_blank: bool,
    /// A carriage return ends a line comment.
    pub(super) return_ends_comment: bool,
    /// A backtick quotes an identifier.
    pub(super) backticks: bool,
    /// `[…]` quotes an identifier.
    pub(super) brackets: bool,
    /// `:name(…)`, `@name(…)`, `$name(…)` are one bind parameter, parentheses included.
    pub(super) tcl_binds: bool,
    pub(super) conditional: Conditional,
}

/// PostgreSQL as it comes: `standard_conforming_strings` is on.
const POSTGRES: Reading = Reading {
    single_escapes: false,
    double_escapes: false,
    e_strings: true,
    e_continues: true,
    dollar_strings: true,
    nested_comments: true,
    hash_comments: false,
    dashes_need_blank: false,
    return_ends_comment: true,
    backticks: false,
    brackets: false,
    tcl_binds: false,
    conditional: Conditional::Comment,
};

/// MySQL and MariaDB as they come.
const MYSQL: Reading = Reading {
    single_escapes: true,
    double_escapes: true,
    e_strings: false,
    e_continues: false,
    dollar_strings: false,
    nested_comments: false,
    hash_comments: true,
    dashes_need_blank: true,
    return_ends_comment: false,
    backticks: true,
    brackets: false,
    tcl_binds: false,
    conditional: Conditional::Code,
};

const SQLITE: Reading = Reading {
    single_escapes: false,
    double_escapes: false,
    e_strings: false,
    e_continues: false,
    dollar_strings: false,
    nested_comments: false,
    hash_comments: false,
    dashes_need_blank: false,
    return_ends_comment: false,
    backticks: true,
    brackets: true,
    tcl_binds: true,
    conditional: Conditional::Comment,
};

/// `ANSI_QUOTES`: `"…"` is an identifier, in which a backslash is a letter.
const MYSQL_ANSI: Reading = Reading {
    double_escapes: false,
    ..MYSQL
};
/// `NO_BACKSLASH_ESCAPES`.
const MYSQL_PLAIN: Reading = Reading {
    single_escapes: false,
    ..MYSQL_ANSI
};

/// What PostgreSQL's relatives make of a continued string is not the same everywhere.
const POSTGRES_RELATIVE: Reading = Reading {
    e_continues: false,
    ..POSTGRES
};
/// `standard_conforming_strings` is off. (Then all strings have escapes, so continuing adds none.)
const POSTGRES_OLD: Reading = Reading {
    single_escapes: true,
    e_continues: false,
    ..POSTGRES
};

/// All readings, grouped by database: `Dialect` picks a range.
const ALL: [Reading; 10] = [
    POSTGRES,
    POSTGRES_RELATIVE,
    POSTGRES_OLD,
    MYSQL,
    MYSQL_ANSI,
    MYSQL_PLAIN,
    Reading {
        conditional: Conditional::Skipped,
        ..MYSQL
    },
    Reading {
        conditional: Conditional::Skipped,
        ..MYSQL_ANSI
    },
    Reading {
        conditional: Conditional::Skipped,
        ..MYSQL_PLAIN
    },
    SQLITE,
];

/// The readings of `text` that differ from one another, at least one.
pub(super) fn readings(text: &str, dialect: Dialect) -> impl Iterator<Item = Reading> {
    let candidates = match dialect {
        Dialect::Unknown => &ALL[..],
        Dialect::Postgres => &ALL[0..3],
        Dialect::MySql => &ALL[3..9],
        Dialect::Sqlite => &ALL[9..],
    };
    let present = Present::in_text(text.as_bytes());
    let mut seen: [Option<Reading>; ALL.len()] = [None; ALL.len()];
    let mut count = 0;
    for reading in candidates {
        let reading = Some(present.simplify(*reading));
        if !seen[..count].contains(&reading) {
            seen[count] = reading;
            count += 1;
        }
    }
    seen.into_iter().flatten()
}

/// Which of the characters that readings disagree about occur at all.
#[derive(Default)]
struct Present {
    backslash: bool,
    hash: bool,
    dash: bool,
    slash: bool,
    dollar: bool,
    colon_or_at: bool,
    backtick: bool,
    bracket: bool,
    carriage_return: bool,
}

impl Present {
    fn in_text(text: &[u8]) -> Self {
        let mut found = Self::default();
        for (at, byte) in text.iter().enumerate() {
            match byte {
                b'\\' => found.backslash = true,
                b'#' => found.hash = true,
                b'-' => found.dash |= text.get(at + 1) == Some(&b'-'),
                b'/' => found.slash |= text.get(at + 1) == Some(&b'*'),
                b'$' => found.dollar = true,
                b':' | b'@' => found.colon_or_at = true,
                b'`' => found.backtick = true,
                b'[' => found.bracket = true,
                b'\r' => found.carriage_return = true,
                _ => {}
            }
        }
        found
    }

    /// Switches off what cannot matter, so that equal readings become equal values. Written without
    /// `..`: a new field does not compile until somebody says when it matters.
    fn simplify(&self, reading: Reading) -> Reading {
        let Reading {
            single_escapes,
            double_escapes,
            e_strings,
            e_continues,
            dollar_strings,
            nested_comments,
            hash_comments,
            dashes_need_blank,
            return_ends_comment,
            backticks,
            brackets,
            tcl_binds,
            conditional,
        } = reading;
        Reading {
            single_escapes: single_escapes && self.backslash,
            double_escapes: double_escapes && self.backslash,
            e_strings: e_strings && self.backslash,
            e_continues: e_continues && self.backslash,
            dollar_strings: dollar_strings && self.dollar,
            nested_comments: nested_comments && self.slash,
            hash_comments: hash_comments && self.hash,
            dashes_need_blank: dashes_need_blank && self.dash,
            return_ends_comment: return_ends_comment && self.carriage_return,
            backticks: backticks && self.backtick,
            brackets: brackets && self.bracket,
            tcl_binds: tcl_binds && (self.dollar || self.colon_or_at),
            conditional: if self.slash {
                conditional
            } else {
                Conditional::Comment
            },
        }
    }
}
