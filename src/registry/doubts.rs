//! What is not known of a connection, from what was seen of it.
//!
//! Responsible for the flags that the way back reads: they decide what the server has to be asked.
//! Not responsible for asking (`pool::way_back`).

use super::cell::{Ending, Use};
use crate::site::{SqlText, sql::Verb};

/// What the way back has to settle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doubts {
    /// The server has to be asked for its state before the next borrower gets it.
    pub(crate) unsure: bool,
    /// A transaction found open is the user's doing: text of theirs, or code that was not seen.
    pub(crate) by_text: bool,
    /// Something was dropped in flight: its answer is still to be read.
    pub(crate) cut: bool,
    /// It was prepared on the server: what answers are on their way is not known either.
    pub(crate) cut_prepared: bool,
    /// The statement that runs is prepared on the server.
    pub(super) prepared: bool,
    /// Client and server no longer agree on what is on the wire: of no use to anybody.
    pub(crate) broken: bool,
    /// A statement was seen to fail since the transaction began.
    pub(crate) failed: bool,
    /// Something ran that may have written, or was not seen, since the transaction began.
    pub(crate) may_have_written: bool,
    /// Rows were seen to be written since the transaction began.
    pub(crate) wrote: bool,
    /// A ROLLBACK is queued on a connection that is kept: sent with the next statement.
    pub(crate) rollback_queued: bool,
}

impl Doubts {
    /// Every use was seen to end well: the server need not be asked, and nothing is on its way.
    pub(crate) fn is_certain(&self) -> bool {
        !(self.unsure || self.cut || self.cut_prepared || self.broken)
    }

    /// The raw connection was lent out.
    pub(super) fn lent(&mut self) {
        self.unsure = true;
        self.by_text = true;
        self.may_have_written = true;
    }

    pub(super) fn told(&mut self, sql: &SqlText) {
        let plain = sql.verb == Verb::Plain;
        self.may_have_written |= !sql.only_reads();
        self.unsure |= !plain;
        self.by_text |= !plain;
    }

    pub(super) fn ended(&mut self, ending: Ending) {
        match ending {
            Ending::Succeeded => {}
            Ending::Failed => {
                self.failed = true;
                self.unsure = true;
            }
            Ending::Broken => {
                self.failed = true;
                self.unsure = true;
                self.broken = true;
            }
            Ending::Cut => {
                self.was_cut();
                self.cut_prepared |= self.prepared;
            }
        }
        self.prepared = false;
    }

    pub(super) fn was_cut(&mut self) {
        self.unsure = true;
        self.cut = true;
    }

    /// A begin, commit or rollback of the guard has succeeded; so many levels are open now.
    pub(super) fn settled(&mut self, what: Use, open: usize) {
        let whole = match what {
            // Before the first statement nothing is unsure; within a transaction, whatever was.
            Use::Begin => open == 1,
            Use::Commit | Use::Rollback => open == 0,
        };
        if whole {
            *self = Self {
                // What was cut may still have answers on the way.
                cut: self.cut,
                cut_prepared: self.cut_prepared,
                broken: self.broken,
                ..Self::default()
            };
        }
    }
}
