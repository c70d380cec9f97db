//! A transaction that is dropped: what each state leaves to the way back.
//!
//! Responsible for queueing rollbacks and for what nobody may rely on any more. Not responsible for
//! healing: see `way_back`.

use sqlx::Database;
use sqlx_core::transaction::TransactionManager;

use super::{Bound, Manager, State, Transaction};
use crate::finding::Kind;
use crate::pool::witness::Server;
use crate::registry::{Ending, Rollback, Use};
use crate::site::Location;

impl<DB: Database> Drop for Transaction<'_, DB> {
    fn drop(&mut self) {
        match self.state {
            State::Ended => {}
            // Nothing that sqlx knows of is open; the way back asks the server.
            State::Beginning => self.conn.cell().unsure(),
            State::Open => self.abandon(),
            State::Ending(_) => self.cut(),
        }
        self.conn.conduct.level = self.outer;
        if self.outer == 0 && !self.conn.conduct.torn {
            // What was doomed is over. On a kept connection the next transaction is a new one.
            self.conn.cell().doom(false);
        }
        if self.outer == 0 {
            self.conn.conduct.sealed = false;
        }
    }
}

impl<DB: Database> Transaction<'_, DB> {
    /// Dropped while open.
    fn abandon(&mut self) {
        self.rolled_back(match self.conn.conduct.discarded {
            true => Rollback::Discarded,
            false => Rollback::Dropped,
        });
        if let (Bound::Owned(conn), 0) = (&mut self.conn, self.outer) {
            // The way back rolls back, with the record showing `returning` until that is done.
            conn.conduct.in_transaction = true;
            return;
        }
        if self.conn.is_doomed() {
            self.conn.cell().unsure();
        }
        // Nobody can be asked: the connection is still in use.
        if self.outer == 0 && !self.conn.conduct.discarded && self.conn.cell().doubts().wrote {
            self.conn.monitor().dropped_writes(self.conn.cell());
        }
        if Server::of::<DB>(self.conn.raw()) == Server::Sqlite {
            // Its levels are counted by another thread: one is open for sure, unless it is doomed.
            if self.depth() > self.outer {
                self.queue_rollback();
            }
            return;
        }
        while self.depth() > self.outer {
            self.queue_rollback();
        }
    }

    /// Dropped while COMMIT or ROLLBACK was in flight.
    fn cut(&mut self) {
        self.conn.cell().unsure();
        if self.state == State::Ending(Use::Rollback) {
            self.rolled_back(Rollback::Asked);
        }
        if self.outer == 0 && self.state == State::Ending(Use::Commit) {
            let line = self.committed_by.filter(|line| !line.is_between());
            let (at, of) = match line.map(Location::from) {
                Some(line) => (
                    format!("committing at {line}; "),
                    format!(" at {}", line.short()),
                ),
                None => (String::new(), String::new()),
            };
            let what = format!("{at}whether its writes are there is not known to its caller");
            let remedy = format!(
                "make what is committed{of} safe to repeat, or run the commit in a task of its own"
            );
            let monitor = self.conn.monitor();
            monitor.ended_badly(self.conn.cell(), Kind::CommitUnknown, &what, Some(&remedy));
        }
        if self.outer > 0 {
            // The savepoint is perhaps gone: rolling back to it would abort the outer transaction
            // in silence (R5), not rolling back would save what the caller may believe lost.
            self.conn.cell().doom(true);
            self.conn.conduct.torn = true;
        }
        match Server::of::<DB>(self.conn.raw()) {
            // The worker skips one rollback after an end that was not taken note of. Not sending it
            // would make it skip somebody else's.
            Server::Sqlite => self.queue_rollback(),
            _ if self.outer > 0 => {}
            // Queued; it runs before the next statement, or on the way back. After a COMMIT that
            // arrived, PostgreSQL answers with a warning.
            _ => {
                while self.depth() > 0 {
                    self.queue_rollback();
                }
            }
        }
    }

    fn queue_rollback(&mut self) {
        let level = self.depth();
        Manager::<DB>::start_rollback(self.conn.raw_mut());
        self.conn
            .cell()
            .did(Use::Rollback, Ending::Cut, level.saturating_sub(1));
    }
}
