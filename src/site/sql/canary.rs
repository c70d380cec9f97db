//! Property tests: values that must never come through.
//!
//! The texts are written here by each database's own rules, not by the tokenizer's. `Q` and `8` stand
//! in values and comments only, so one of them in the output is a leak, even of half a value.

use super::*;
use proptest::prelude::*;

const CANARY: &str = "QQ8Q";

/// A server and its settings: how it reads a text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    Postgres,
    /// `standard_conforming_strings = off`
    PostgresOld,
    MySql,
    /// `ANSI_QUOTES`
    MySqlAnsi,
    /// `ANSI_QUOTES`, `NO_BACKSLASH_ESCAPES`
    MySqlPlain,
    Sqlite,
}
use Server::*;

const SERVERS: [Server; 6] = [Postgres, PostgresOld, MySql, MySqlAnsi, MySqlPlain, Sqlite];

impl Server {
    fn dialect(self) -> Dialect {
        match self {
            Postgres | PostgresOld => Dialect::Postgres,
            MySql | MySqlAnsi | MySqlPlain => Dialect::MySql,
            Sqlite => Dialect::Sqlite,
        }
    }

    fn is_postgres(self) -> bool {
        self.dialect() == Dialect::Postgres
    }

    fn is_mysql(self) -> bool {
        self.dialect() == Dialect::MySql
    }

    fn escapes(self) -> bool {
        matches!(self, PostgresOld | MySql | MySqlAnsi)
    }

    /// Whether this server knows the form at all.
    fn knows(self, form: u8) -> bool {
        match form {
            5..=7 | 22 => self.is_postgres(),
            8 | 14 | 20 | 21 => self.is_mysql(),
            9 | 19 => matches!(self, MySql | Sqlite),
            17 => matches!(self, Sqlite) || self.is_mysql(),
            18 | 23 => self == Sqlite,
            _ => true,
        }
    }

    /// One piece of SQL. `junk` may hold anything but the canary's characters; the piece holds the
    /// canary only inside a value or a comment.
    fn piece(self, form: u8, junk: &str) -> String {
        let value = format!("{junk}{CANARY}{junk}");
        let quoted = |text: &str, quote: &str, escapes: bool| {
            let text = if escapes {
                text.replace('\\', r"\\")
            } else {
                text.to_owned()
            };
            // Both ways to write a quote, where there are two.
            let by_backslash = escapes && text.len() % 2 == 0;
            let twice = if by_backslash {
                format!("\\{quote}")
            } else {
                quote.repeat(2)
            };
            format!("{quote}{}{quote}", text.replace(quote, &twice))
        };
        let string = quoted(&value, "'", self.escapes());
        let line = value.replace(['\n', '\r'], " ");
        let no_stars = value.replace(['*', '/'], "");
        match form {
            0 | 1 => string,
            2 => format!("N{string}"),
            3 => format!("DATE {string}"),
            4 => format!("8{}", junk.len()),
            5 => format!("E{}", quoted(&value, "'", true)),
            6 => format!("$t${}$t$", value.replace("$t", "")),
            7 => format!("E'x'\n {}", quoted(&value, "'", true)),
            8 => format!("_latin1{string}"),
            9 => quoted(&value, "\"", self == MySql),
            10 => "0x8F".to_owned(),
            11 => format!("-- {line}\n"),
            12 => format!("/*{no_stars}*/"),
            13 if self.is_postgres() => format!("/* /*{no_stars}*/ {CANARY} */"),
            13 => format!("/* /*{no_stars}*/"),
            14 => format!("#{line}\n"),
            15 => "SELECT a FROM b WHERE c =".to_owned(),
            16 if self == MySql => "x".to_owned(),
            16 => quoted(junk, "\"", false),
            17 => quoted(junk, "`", false),
            18 => format!("[{}]", junk.replace(']', "")),
            19 => "1.5e-8".to_owned(),
            20 => format!("/*!50001 {string} */"),
            21 => format!("1--{string}"),
            22 => format!("-- {}\r{string}", line),
            23 => format!(":a({})", junk.replace([')', ' ', '\n', '\r'], "")),
            _ => "$1".to_owned(),
        }
    }
}

fn junk() -> impl Strategy<Value = String> {
    const BITS: &[&str] = &[
        "'", "\"", "\\", "$", "$$", "$t$", "`", "[", "]", "--", "-- ", "/*", "*/", "#", ";", "\n",
        "\r", " ", "a", "E", "é", "(", ")", ":", "\u{202e}",
    ];
    prop::collection::vec(prop::sample::select(BITS), 0..5).prop_map(|bits| bits.concat())
}

fn text() -> impl Strategy<Value = (Server, String)> {
    const SEPARATORS: &[&str] = &[
        " ", "\n", ", ", " (", ") ", " + ", " - ", " ; ", " . ", "\t",
    ];
    let part = (0_u8..25, junk(), prop::sample::select(SEPARATORS));
    (
        prop::sample::select(&SERVERS[..]),
        prop::collection::vec(part, 1..7),
    )
        .prop_map(|(server, parts)| {
            let parts = parts.into_iter().filter(|(form, ..)| server.knows(*form));
            (
                server,
                parts
                    .map(|(form, junk, separator)| server.piece(form, &junk) + separator)
                    .collect(),
            )
        })
}

#[track_caller]
fn no_leak(sql: &str, dialect: Dialect) {
    let shown = mask_sql_for(sql, dialect);
    // An escaped character is shown by its number, which may hold an 8.
    let bare = shown.replace("\\u{", "{");
    assert!(
        !bare.contains(['Q', '8']),
        "{dialect:?}\n{sql:?}\n{shown:?}"
    );
    assert!(
        !shown.chars().any(crate::site::text::is_hidden),
        "{shown:?}"
    );
    assert!(shown.chars().count() <= 201, "{shown:?}");
}

#[test]
fn no_prefix_of_any_form_shows_a_value() {
    for server in SERVERS {
        for form in (0..25).filter(|form| server.knows(*form)) {
            for junk in [
                "", "'", "\\", "''", "\\'", "*/ '", "\"", "$$", "--", "; ", "#\n", "]",
            ] {
                let piece = server.piece(form, junk);
                let sql = format!("SELECT a, {piece} , {} FROM t", server.piece(0, junk));
                for (cut, _) in sql.char_indices() {
                    no_leak(&sql[..cut], server.dialect());
                    no_leak(&sql[..cut], Dialect::Unknown);
                }
                no_leak(&sql, server.dialect());
                no_leak(&sql, Dialect::Unknown);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn no_value_comes_through_whatever_stands_around_it((server, sql) in text(), cut in 0.0..1.0_f64) {
        no_leak(&sql, server.dialect());
        no_leak(&sql, Dialect::Unknown);
        let mut cut = (sql.len() as f64 * cut) as usize;
        while !sql.is_char_boundary(cut) {
            cut -= 1;
        }
        no_leak(&sql[..cut], server.dialect());
        no_leak(&sql[..cut], Dialect::Unknown);
    }

    #[test]
    fn no_second_statement_hides((server, sql) in text(), second in "(COMMIT|BEGIN|SET x = y|SELECT 1)") {
        let sql = format!("SELECT {sql} ; {second}");
        for dialect in [server.dialect(), Dialect::Unknown] {
            let verb = classify_for(&sql, dialect);
            prop_assert!(matches!(verb, Verb::Script | Verb::Unknown), "{:?} {:?}", verb, sql);
        }
    }

    #[test]
    fn any_text_gives_one_visible_line(sql in any::<String>()) {
        for dialect in [Dialect::Unknown, Dialect::Postgres, Dialect::MySql, Dialect::Sqlite] {
            let shown = mask_sql_for(&sql, dialect);
            prop_assert!(!shown.chars().any(crate::site::text::is_hidden), "{:?}", shown);
            prop_assert!(shown.chars().count() <= 201);
            classify_for(&sql, dialect);
        }
    }

    #[test]
    fn tokens_cover_the_text_and_split_no_character(sql in any::<String>(), (_, other) in text()) {
        for sql in [sql, other] {
            for reading in super::reading::readings(&sql, Dialect::Unknown) {
                let mut at = 0;
                for token in super::lexer::Lexer::new(&sql, reading) {
                    prop_assert_eq!(token.start, at);
                    prop_assert!(token.end > at && sql.is_char_boundary(token.end), "{:?}", token);
                    at = token.end;
                }
                prop_assert_eq!(at, sql.len());
            }
        }
    }

    #[test]
    fn a_masked_text_masks_to_itself((_, sql) in text()) {
        let once = mask_sql(&sql);
        // An escape, a fold or a cut is no SQL, and half a quoted name or bind is another one.
        if !once.contains(":a(") && !once.contains(['\\', '#', '`', '[', '…']) && !once.contains("--") {
            prop_assert_eq!(mask_sql(&once), once);
        }
    }
}
