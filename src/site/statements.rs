//! SQL texts: masked once, kept once.
//!
//! Responsible for turning the text of a statement into what a reader may see and what the way
//! back has to know of it. Not responsible for the masking itself (`sql`).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use dashmap::DashMap;

use super::sql::{self, Dialect, Verb};
use crate::sync::atomic::{AtomicU64, Ordering};

/// A statement as it may be shown: masked and cut, never with a value in it.
#[derive(Debug)]
pub(crate) struct SqlText {
    pub(crate) masked: Box<str>,
    pub(crate) verb: Verb,
}

impl SqlText {
    /// One statement of a kind that writes nothing by itself. What a function it calls may do is
    /// not known.
    pub(crate) fn only_reads(&self) -> bool {
        let word = self
            .masked
            .split([' ', '(', '\n'])
            .find(|word| !word.is_empty());
        self.verb == Verb::Plain
            && word.is_some_and(|word| {
                ["SELECT", "VALUES", "TABLE", "SHOW"]
                    .iter()
                    .any(|known| word.eq_ignore_ascii_case(known))
            })
    }
}

/// Every distinct statement, once.
///
/// Texts are found by a keyed hash, so that no literal of an unmasked text stays in memory.
pub(crate) struct Statements {
    by_hash: DashMap<u64, Arc<SqlText>>,
    hasher: RandomState,
    dropped: AtomicU64,
}

impl Statements {
    /// The most distinct texts that are kept.
    const KEPT: usize = 4096;
    /// A text longer than this is masked up to here and not judged: a bulk insert must not cost
    /// a pass over a megabyte.
    const READ: usize = 4096;

    pub(crate) fn new() -> Self {
        Self {
            by_hash: DashMap::new(),
            hasher: RandomState::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// The shown form of `sql`.
    ///
    /// # Cost
    /// A hash and a look-up for a text seen before; one pass over it otherwise.
    pub(crate) fn intern(&self, sql: &str, dialect: Dialect) -> Arc<SqlText> {
        if sql.len() > Self::READ {
            let end = (0..=Self::READ).rev().find(|&at| sql.is_char_boundary(at));
            return Arc::new(SqlText {
                masked: sql::mask_sql_for(&sql[..end.unwrap_or(0)], dialect).into(),
                verb: Verb::Unknown,
            });
        }
        let hash = self.hasher.hash_one((sql, dialect as u8));
        if let Some(known) = self.by_hash.get(&hash) {
            return Arc::clone(&known);
        }
        let text = Arc::new(SqlText {
            masked: sql::mask_sql_for(sql, dialect).into(),
            verb: sql::classify_for(sql, dialect),
        });
        if self.by_hash.len() < Self::KEPT {
            self.by_hash.insert(hash, Arc::clone(&text));
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        text
    }

    /// How many statements were masked anew because there was no room to keep them.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_masked_once() {
        let statements = Statements::new();
        let first = statements.intern("SELECT 1", Dialect::Postgres);
        assert!(Arc::ptr_eq(
            &first,
            &statements.intern("SELECT 1", Dialect::Postgres)
        ));
        assert!(first.masked.starts_with("SELECT"));
    }

    #[test]
    fn a_huge_text_is_neither_kept_nor_judged() {
        let statements = Statements::new();
        let text = statements.intern(&format!("SELECT '{}ä'", "ä".repeat(5000)), Dialect::Sqlite);
        assert_eq!(text.verb, Verb::Unknown);
        assert_eq!(statements.by_hash.len(), 0);
    }
}
