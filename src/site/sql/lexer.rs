//! Cuts a SQL text into tokens under one reading.
//!
//! Responsible for where a token begins and ends, nothing else: it accepts any text, and every byte
//! belongs to exactly one token. Not responsible for what a token means.
//!
//! A token always ends beside an ASCII byte or at the end of the text, so its limits are character
//! limits. What it says of a byte depends only on the bytes before it: a cut text is read like the
//! beginning of the whole one.

use super::reading::{Conditional, Reading};
use super::token::{Kind, Token, is_space};

/// Whether a string that follows would continue a string with escapes, and so have them too.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Continues {
    No,
    /// Yes, if a line break comes first.
    OnNextLine,
    Yes,
}

#[derive(Debug)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    reading: Reading,
    /// How many conditional comments are being read as code.
    conditionals: u32,
    /// The rest of a bind parameter's parentheses ends here.
    bind_rest: Option<usize>,
    previous: Option<Kind>,
    continues: Continues,
}

/// Longest bind number shown: PostgreSQL allows 65535 of them. A longer one is taken for a value.
const BIND_DIGITS: usize = 5;

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn in_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, reading: Reading) -> Self {
        Self {
            text: text.as_bytes(),
            at: 0,
            reading,
            conditionals: 0,
            bind_rest: None,
            previous: None,
            continues: Continues::No,
        }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    fn is(&self, at: usize, wanted: u8) -> bool {
        self.byte(at) == Some(wanted)
    }

    /// The first position from `at` on whose byte is not `wanted`.
    fn run(&self, at: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        at + rest
            .iter()
            .position(|byte| !wanted(*byte))
            .unwrap_or(rest.len())
    }

    /// The end of something quoted whose inside begins at `at`, and whether it is open. A doubled
    /// quote is part of the inside.
    fn quoted(&self, mut at: usize, quote: u8, escapes: bool) -> (usize, bool) {
        while let Some(byte) = self.byte(at) {
            at += 1;
            if byte == b'\\' && escapes {
                at += 1;
            } else if byte == quote {
                if !self.is(at, quote) {
                    return (at, false);
                }
                at += 1;
            }
        }
        (self.text.len(), true)
    }

    fn line_comment(&self, at: usize) -> usize {
        let returns = self.reading.return_ends_comment;
        self.run(at, |byte| byte != b'\n' && !(returns && byte == b'\r'))
    }

    /// The end of a block comment whose inside begins at `at`, and whether it is open.
    fn block_comment(&self, mut at: usize, nested: bool) -> (usize, bool) {
        let mut depth = 1_usize;
        while at < self.text.len() {
            if self.is(at, b'*') && self.is(at + 1, b'/') {
                at += 2;
                depth -= 1;
                if depth == 0 {
                    return (at, false);
                }
            } else if nested && self.is(at, b'/') && self.is(at + 1, b'*') {
                at += 2;
                depth += 1;
            } else {
                at += 1;
            }
        }
        (self.text.len(), true)
    }

    fn comment(&mut self, start: usize) -> (usize, bool) {
        let inside = start + 2;
        let marked = self.is(inside, b'!')
            || self.is(inside, b'+')
            || (self.is(inside, b'M') && self.is(inside + 1, b'!'));
        match self.reading.conditional {
            Conditional::Code if marked => {
                self.conditionals += 1;
                let version = self.run(inside, |byte| matches!(byte, b'!' | b'+' | b'M'));
                (self.run(version, |byte| byte.is_ascii_digit()), false)
            }
            Conditional::Skipped if marked => self.block_comment(inside, true),
            _ => self.block_comment(inside, self.reading.nested_comments),
        }
    }

    /// A dollar-quoted string at `start`, if there is one.
    ///
    /// Linear in all: a tag holds no dollar sign, so comparisons at two dollar signs do not overlap.
    fn dollar_string(&self, start: usize) -> Option<(usize, bool)> {
        let tag_end = self.run(start + 1, |byte| in_word(byte) && byte != b'$');
        if !self.is(tag_end, b'$') || self.byte(start + 1)?.is_ascii_digit() {
            return None;
        }
        let tag = &self.text[start..=tag_end];
        let mut at = tag_end + 1;
        loop {
            at = self.run(at, |byte| byte != b'$');
            if at >= self.text.len() {
                return Some((self.text.len(), true));
            }
            if self.text[at..].starts_with(tag) {
                return Some((at + tag.len(), false));
            }
            at += 1;
        }
    }

    /// A bind parameter that begins at `start` with one sign, named or numbered.
    fn bind(&self, start: usize, end: usize) -> (Kind, usize, bool) {
        let name = &self.text[start + 1..end];
        let value = name.len() > BIND_DIGITS && name.iter().all(u8::is_ascii_digit);
        (if value { Kind::Number } else { Kind::Bind }, end, false)
    }

    /// SQLite's way: the name may contain `::`, and end in parentheses that hold anything but
    /// white space.
    fn tcl_bind(&mut self, start: usize) -> (Kind, usize, bool) {
        let mut at = start + 1;
        let mut named = false;
        loop {
            let name_end = self.run(at, in_word);
            named |= name_end > at;
            at = name_end;
            if !(self.is(at, b':') && self.is(at + 1, b':')) {
                break;
            }
            at += 2;
        }
        if !named {
            return (Kind::Mark, start + 1, false);
        }
        if !self.is(at, b'(') {
            return self.bind(start, at);
        }
        let rest = self.run(at + 1, |byte| byte != b')' && !is_space(byte));
        self.bind_rest = Some(rest).filter(|rest| *rest > at + 1);
        (Kind::Bind, at + 1, false)
    }

    /// A bind parameter, a dollar string or an identifier, each of which `$`, `:` or `@` may begin.
    fn sign(&mut self, start: usize, sign: u8) -> (Kind, usize, bool) {
        if sign == b'$'
            && self.reading.dollar_strings
            && let Some((end, open)) = self.dollar_string(start)
        {
            self.continues = Continues::No;
            return (Kind::Text, end, open);
        }
        if self.reading.tcl_binds {
            return self.tcl_bind(start);
        }
        match self.byte(start + 1) {
            Some(byte) if byte.is_ascii_digit() && sign == b'$' => {
                self.bind(start, self.run(start + 1, |byte| byte.is_ascii_digit()))
            }
            // A name that begins with a dollar sign, as MySQL allows.
            Some(byte) if sign == b'$' && !self.reading.dollar_strings && in_word(byte) => {
                (Kind::Word, self.run(start + 1, in_word), false)
            }
            // Not a digit: `a[1:2]` and `@5` hold values in PostgreSQL.
            Some(byte) if sign != b'$' && starts_word(byte) => {
                (Kind::Bind, self.run(start + 1, in_word), false)
            }
            _ => (Kind::Mark, start + 1, false),
        }
    }

    /// The end of a number, and of whatever is glued to it: a UUID without quotes is a value too.
    fn number(&self, start: usize) -> usize {
        let radix = self.is(start, b'0')
            && matches!(
                self.byte(start + 1),
                Some(b'x' | b'X' | b'b' | b'B' | b'o' | b'O')
            );
        let mut at = start;
        // Letters that are no part of a number: then a dollar sign goes on with a name.
        let mut glued = false;
        while let Some(byte) = self.byte(at) {
            match byte {
                b'0'..=b'9' | b'_' | b'.' => at += 1,
                b'e' | b'E' if !radix && !glued => {
                    let sign = usize::from(matches!(self.byte(at + 1), Some(b'+' | b'-')));
                    if self
                        .byte(at + 1 + sign)
                        .is_some_and(|byte| byte.is_ascii_digit())
                    {
                        at += 1 + sign;
                    } else {
                        glued = true;
                        at += 1;
                    }
                }
                b'$' if glued => at += 1,
                _ if starts_word(byte) => {
                    glued = !radix;
                    at += 1;
                }
                _ => break,
            }
        }
        at
    }

    /// A word, or the string whose prefix it is.
    fn word(&mut self, start: usize) -> (Kind, usize, bool) {
        let end = self.run(start, in_word);
        let word = &self.text[start..end];
        let single = self.reading.single_escapes;
        match (word, self.byte(end)) {
            ([b'e' | b'E'], Some(b'\'')) => self.string(end, single || self.reading.e_strings),
            ([b'n' | b'N' | b'b' | b'B' | b'x' | b'X'] | [b'_', ..], Some(b'\'')) => {
                self.string(end, single)
            }
            ([b'_', ..], Some(b'"')) => self.double(end),
            ([b'u' | b'U'], Some(b'&')) if self.is(end + 1, b'\'') => self.string(end + 1, single),
            ([b'u' | b'U'], Some(b'&')) if self.is(end + 1, b'"') => self.double(end + 1),
            _ => (Kind::Word, end, false),
        }
    }

    fn string(&mut self, quote: usize, escapes: bool) -> (Kind, usize, bool) {
        let (end, open) = self.quoted(quote + 1, b'\'', escapes);
        self.continues = if escapes {
            Continues::OnNextLine
        } else {
            Continues::No
        };
        (Kind::Text, end, open)
    }

    fn double(&self, quote: usize) -> (Kind, usize, bool) {
        let (end, open) = self.quoted(quote + 1, b'"', self.reading.double_escapes);
        (Kind::Double, end, open)
    }

    /// Whether a string at `start` has escapes because of what stands before it.
    fn inherits_escapes(&self, start: usize) -> bool {
        // Older PostgreSQL reads `1E'…'` as a number and an `E'…'`.
        let after_number =
            self.previous == Some(Kind::Number) && matches!(self.text[start - 1], b'e' | b'E');
        (self.reading.e_strings && after_number)
            || (self.reading.e_continues && self.continues == Continues::Yes)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let start = self.at;
        let first = self.byte(start)?;
        let second = self.byte(start + 1);
        let third = self.byte(start + 2);
        let closed = |kind, end| (kind, end, false);
        let (kind, end, open) = if let Some(end) = self.bind_rest.take() {
            closed(Kind::Text, end)
        } else {
            match first {
                _ if is_space(first) => closed(Kind::Space, self.run(start, is_space)),
                b'-' if second == Some(b'-')
                    && (!self.reading.dashes_need_blank
                        || third.is_none_or(|byte| is_space(byte) || byte.is_ascii_control())) =>
                {
                    closed(Kind::Comment, self.line_comment(start))
                }
                b'#' if self.reading.hash_comments => {
                    closed(Kind::Comment, self.line_comment(start))
                }
                b'/' if second == Some(b'*') => {
                    let (end, open) = self.comment(start);
                    (Kind::Comment, end, open)
                }
                b'*' if second == Some(b'/') && self.conditionals > 0 => {
                    self.conditionals -= 1;
                    closed(Kind::Comment, start + 2)
                }
                b'\'' => {
                    let escapes = self.reading.single_escapes || self.inherits_escapes(start);
                    self.string(start, escapes)
                }
                b'"' => self.double(start),
                b'`' if self.reading.backticks => {
                    let (end, open) = self.quoted(start + 1, b'`', false);
                    (Kind::Quoted, end, open)
                }
                b'[' if self.reading.brackets => {
                    let end = self.run(start, |byte| byte != b']');
                    (
                        Kind::Quoted,
                        (end + 1).min(self.text.len()),
                        end == self.text.len(),
                    )
                }
                b'$' | b':' | b'@' => self.sign(start, first),
                b'?' => self.bind(start, self.run(start + 1, |byte| byte.is_ascii_digit())),
                b';' => closed(Kind::Semicolon, start + 1),
                b'0'..=b'9' => closed(Kind::Number, self.number(start)),
                b'.' if second.is_some_and(|byte| byte.is_ascii_digit())
                    && !matches!(
                        self.previous,
                        Some(Kind::Word | Kind::Quoted | Kind::Double)
                    ) =>
                {
                    closed(Kind::Number, self.number(start))
                }
                _ if starts_word(first) => self.word(start),
                _ => closed(Kind::Mark, start + 1),
            }
        };
        match kind {
            Kind::Text | Kind::Comment => {}
            Kind::Space if self.continues != Continues::No => {
                if self.text[start..end]
                    .iter()
                    .any(|byte| matches!(byte, b'\n' | b'\r'))
                {
                    self.continues = Continues::Yes;
                }
            }
            Kind::Space => {}
            _ => self.continues = Continues::No,
        }
        self.previous = Some(kind);
        self.at = end;
        Some(Token {
            kind,
            start,
            end,
            open,
        })
    }
}
