//! A statement on its way: its text, its start, its end.
//!
//! Responsible for seeing them without changing anything: every poll, row and error is passed on as
//! it is. Not responsible for where the statement came from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use sqlx::error::BoxDynError;
use sqlx::{Database, Either, Error, Execute, SqlStr};

use super::watch::dialect;
use super::witness;
use crate::monitor::Monitor;
use crate::registry::{Cell, Ending};

/// What a statement answers.
pub(super) type Results<'e, DB> =
    BoxStream<'e, Result<Either<<DB as Database>::QueryResult, <DB as Database>::Row>, Error>>;

/// A query that tells its text when the driver takes it.
pub(super) struct Told<Q> {
    query: Q,
    cell: Arc<Cell>,
    monitor: Monitor,
}

impl<Q> Told<Q> {
    pub(super) fn new(query: Q, cell: &Arc<Cell>, monitor: &Monitor) -> Self {
        Self {
            query,
            cell: Arc::clone(cell),
            monitor: monitor.clone(),
        }
    }
}

/// Notes the text of a statement.
pub(super) fn tell<DB: Database>(sql: &SqlStr, cell: &Cell, monitor: &Monitor) {
    cell.told(monitor.statement(sql.as_str(), dialect::<DB>()));
}

impl<'q, DB: Database, Q: Execute<'q, DB>> Execute<'q, DB> for Told<Q> {
    fn sql(self) -> SqlStr {
        let sql = self.query.sql();
        tell::<DB>(&sql, &self.cell, &self.monitor);
        sql
    }

    fn statement(&self) -> Option<&DB::Statement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<DB::Arguments>, BoxDynError> {
        let arguments = self.query.take_arguments();
        if matches!(arguments, Ok(Some(_))) {
            self.cell.prepared();
        }
        arguments
    }

    fn persistent(&self) -> bool {
        self.query.persistent()
    }
}

/// The state of one statement. Dropped before its end, it says that it was cut.
struct Flight {
    cell: Arc<Cell>,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    /// sqlx sends nothing before the first poll.
    NotStarted,
    Running,
    Over,
}

impl Flight {
    fn new(cell: &Arc<Cell>) -> Self {
        Self {
            cell: Arc::clone(cell),
            state: State::NotStarted,
        }
    }

    fn polled(&mut self) {
        if self.state == State::NotStarted {
            self.state = State::Running;
            self.cell.started();
        }
    }

    fn over(&mut self, ending: Ending) {
        if self.state == State::Running {
            self.state = State::Over;
            self.cell.ended_statement(ending);
        }
    }
}

/// What an error says of the connection. After a protocol error sqlx's MySQL driver has sent more
/// than it reads answers for, and its next user would wait for ever.
fn failure(error: &Error) -> Ending {
    match error {
        Error::Protocol(_) | Error::Io(_) | Error::Tls(_) | Error::WorkerCrashed => Ending::Broken,
        _ => Ending::Failed,
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.over(Ending::Cut);
    }
}

/// The results of a statement.
pub(super) struct Rows<'e, DB: Database> {
    // Declared first: the driver's stream is dropped before the flight says that it was cut.
    rows: Results<'e, DB>,
    flight: Flight,
}

impl<'e, DB: Database> Rows<'e, DB> {
    pub(super) fn new(rows: Results<'e, DB>, cell: &Arc<Cell>) -> Self {
        Self {
            rows,
            flight: Flight::new(cell),
        }
    }
}

impl<DB: Database> Stream for Rows<'_, DB> {
    type Item = Result<Either<DB::QueryResult, DB::Row>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.flight.polled();
        this.flight.cell.parked(false);
        let poll = this.rows.as_mut().poll_next(cx);
        match &poll {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(Either::Left(done)))) => {
                if witness::rows_affected::<DB>(done) > 0 {
                    this.flight.cell.changed_rows();
                }
            }
            Poll::Ready(Some(Ok(Either::Right(_)))) => this.flight.cell.parked(true),
            Poll::Ready(Some(Err(error))) => this.flight.over(failure(error)),
            Poll::Ready(None) => this.flight.over(Ending::Succeeded),
        }
        poll
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

/// The answer of a statement that gives one.
pub(super) struct Answer<'e, T> {
    answer: BoxFuture<'e, Result<T, Error>>,
    flight: Flight,
}

impl<'e, T> Answer<'e, T> {
    pub(super) fn new(answer: BoxFuture<'e, Result<T, Error>>, cell: &Arc<Cell>) -> Self {
        Self {
            answer,
            flight: Flight::new(cell),
        }
    }
}

impl<T> Future for Answer<'_, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.flight.polled();
        let poll = this.answer.as_mut().poll(cx);
        match &poll {
            Poll::Pending => {}
            Poll::Ready(Ok(_)) => this.flight.over(Ending::Succeeded),
            Poll::Ready(Err(error)) => this.flight.over(failure(error)),
        }
        poll
    }
}
