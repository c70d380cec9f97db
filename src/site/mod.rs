//! Where in the user's code something happened, and with which statement.
//!
//! Responsible for call sites, stacks and SQL texts: keeping each distinct one once, and naming it
//! for a reader. Not responsible for when they are taken (the pool) or for layout (the report).

mod capture;
mod names;
pub(crate) mod sql;
mod stack;
mod statements;
mod symbols;
pub(crate) mod text;
mod waits;

use std::borrow::Cow;
use std::fmt;
use std::panic;

pub(crate) use self::stack::Stacks;
pub use self::stack::{Frame, Stack};
pub(crate) use self::statements::{SqlText, Statements};
pub(crate) use self::symbols::Reading;
#[cfg(feature = "json")]
pub(crate) use self::symbols::serialize_named;
pub(crate) use self::waits::walk_waited;

/// A place in source code: file, line and column.
///
/// Prints as `src/orders/repo.rs:88:31`: the path from the crate's own folder, never the absolute
/// one of the machine that built it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    file: Cow<'static, str>,
    line: u32,
    column: u32,
}

impl Location {
    pub(crate) fn new(file: impl Into<Cow<'static, str>>, line: u32, column: u32) -> Self {
        Self {
            file: file.into(),
            line,
            column,
        }
    }

    /// The file, from the folder of its crate on.
    pub fn file(&self) -> String {
        text::source_path(&self.file)
    }

    /// The line, from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The column, from 1; 0 when it is not known.
    pub fn column(&self) -> u32 {
        self.column
    }

    /// The file's name and the line, for the places where a path would be too long. With as many
    /// folders as it takes where every crate or module has a file of that name.
    pub(crate) fn short(&self) -> String {
        format!("{}:{}", text::short_path(&self.file()), self.line)
    }
}

impl From<CallSite> for Location {
    fn from(site: CallSite) -> Self {
        Self::new(site.0.file(), site.0.line(), site.0.column())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file(), self.line)?;
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        Ok(())
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for Location {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The caller of a tracked function, as the compiler knows it: one pointer.
///
/// Equal when it is the same place, also where the compiler has made several copies of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CallSite(&'static panic::Location<'static>);

impl CallSite {
    #[track_caller]
    pub(crate) fn caller() -> Self {
        Self(panic::Location::caller())
    }

    /// Whether the place lies in code that stands between the user's and ours: sqlx, or a shim of
    /// the standard library. Such a place is never shown.
    pub(crate) fn is_between(self) -> bool {
        text::is_between(self.0.file())
    }
}
