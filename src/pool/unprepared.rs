//! Statements without a name on the server, for poolers that lend it for one transaction at a time.
//!
//! Responsible for statements of a pool with `prepared_statements(false)`. Not responsible for how a
//! statement is seen: see `seen`.
//!
//! Without a name is not enough. sqlx sends Parse, waits, and then sends Bind; in between, a pooler
//! in transaction mode lends the server to another client, whose Parse replaces ours: one client's
//! answer is the other's, without an error. Inside of a transaction the server stays ours, so a
//! statement with arguments that is alone gets a transaction of its own.

use futures_util::TryStreamExt;
use sqlx::error::BoxDynError;
use sqlx::{Database, Error, Execute, Executor, SqlStr};
use sqlx_core::transaction::TransactionManager;

use super::PoolOptions;
use super::conn::Conn;
use super::seen::{Results, direct, direct_optional};
use super::transaction::Transaction;
use super::witness::{self, Server};
use crate::site::CallSite;

impl<DB: Database> PoolOptions<DB> {
    /// Sets whether statements are prepared under a name and kept. Default: true.
    ///
    /// `false` is for poolers that lend a server for one transaction at a time, such as PgBouncer in
    /// transaction mode, and for them alone. sqlx's own `persistent(false)` is not enough there: on
    /// PostgreSQL it sends a statement in two steps, between which the pooler gives the server to
    /// somebody else, whose statement is then run in place of yours, without an error.
    ///
    /// So statements leave no name, and on PostgreSQL one with arguments outside of a transaction is
    /// put into one of its own. A result stream that is dropped before its end is then rolled back.
    /// `VACUUM` and its like need `sqlx::raw_sql`. `prepare` and `describe` are refused. Raw loans
    /// (`&mut PgConnection`) are not seen: use them inside of a transaction, with
    /// `persistent(false)`. The backend is not learned, as with
    /// [`identify_backends(false)`](Self::identify_backends): the next transaction has another.
    ///
    /// # Cost
    /// Two round trips more for a statement outside of a transaction, and each is planned anew.
    pub fn prepared_statements(mut self, prepared: bool) -> Self {
        self.unprepared = !prepared;
        self
    }
}

type Taken<DB> = Result<Option<<DB as Database>::Arguments>, BoxDynError>;

/// A query that leaves no name behind. Its arguments are taken early: they say whether it is
/// prepared at all.
pub(super) struct Unnamed<Q, DB: Database> {
    query: Q,
    arguments: Option<Taken<DB>>,
}

impl<Q, DB: Database> Unnamed<Q, DB> {
    fn new<'q>(mut query: Q) -> Self
    where
        Q: Execute<'q, DB>,
    {
        let arguments = Some(query.take_arguments());
        Self { query, arguments }
    }

    /// Text without arguments is one message, and one answer.
    fn is_prepared(&self) -> bool {
        matches!(self.arguments, Some(Ok(Some(_))))
    }
}

impl<'q, DB: Database, Q: Execute<'q, DB>> Execute<'q, DB> for Unnamed<Q, DB> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&DB::Statement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Taken<DB> {
        self.arguments.take().unwrap_or(Ok(None))
    }

    fn persistent(&self) -> bool {
        false
    }
}

/// What `prepare` and `describe` answer: both leave a name behind, which meets that of another
/// client.
pub(super) fn refusal() -> Error {
    Error::Configuration(
        "prepare() and describe() name a statement on the server, and this pool was made with \
         prepared_statements(false): run the query itself"
            .into(),
    )
}

/// Whether a statement that is prepared needs a transaction of its own. A transaction that was begun
/// by text, or on a raw loan, is asked about.
async fn is_alone<DB: Database>(conn: &mut Conn<DB>) -> Result<bool, Error> {
    if DB::TransactionManager::get_transaction_depth(conn.raw()) > 0 {
        return Ok(false);
    }
    if !conn.cell().doubts().unsure {
        return Ok(true);
    }
    witness::is_in_transaction::<DB>(conn.raw_mut())
        .await
        .map(|is| !is)
}

/// Begins a transaction for this query, if it needs one. `Err`: the connection, for one that needs
/// none.
async fn own_transaction<'c, DB: Database>(
    conn: &'c mut Conn<DB>,
    is_prepared: bool,
) -> Result<Result<Transaction<'c, DB>, &'c mut Conn<DB>>, Error> {
    let needed = is_prepared
        && Server::of::<DB>(conn.raw()) == Server::Postgres
        && is_alone::<DB>(conn).await?;
    if needed {
        Transaction::start_lent(conn, None).await.map(Ok)
    } else {
        Ok(Err(conn))
    }
}

/// As `seen` does it, without a name.
pub(super) fn many<'e, 'c: 'e, 'q: 'e, DB, E>(
    conn: &'c mut Conn<DB>,
    query: E,
    by: Option<CallSite>,
) -> Results<'e, DB>
where
    DB: Database,
    for<'a> &'a mut DB::Connection: Executor<'a, Database = DB>,
    E: 'q + Execute<'q, DB>,
{
    let query = Unnamed::<E, DB>::new(query);
    // The transaction is begun from there too, and would take the line for itself.
    let by = by.or_else(|| conn.cell().borrower());
    Box::pin(async_stream::try_stream! {
        match own_transaction(conn, query.is_prepared()).await? {
            Err(conn) => {
                let mut results = direct(conn, query, by);
                while let Some(result) = results.try_next().await? {
                    yield result;
                }
            }
            Ok(mut tx) => {
                let mut results = direct(tx.executor(), query, by);
                let failed = loop {
                    match results.try_next().await {
                        Ok(Some(result)) => yield result,
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                };
                drop(results);
                end(tx, failed).await?;
            }
        }
    })
}

/// As `seen` does it, without a name.
pub(super) async fn optional<'q, DB, E>(
    conn: &mut Conn<DB>,
    query: E,
    by: Option<CallSite>,
) -> Result<Option<DB::Row>, Error>
where
    DB: Database,
    for<'a> &'a mut DB::Connection: Executor<'a, Database = DB>,
    E: 'q + Execute<'q, DB>,
{
    let query = Unnamed::<E, DB>::new(query);
    let by = by.or_else(|| conn.cell().borrower());
    match own_transaction(conn, query.is_prepared()).await? {
        Err(conn) => direct_optional(conn, query, by).await,
        Ok(mut tx) => match direct_optional(tx.executor(), query, by).await {
            Ok(row) => end(tx, None).await.map(|()| row),
            Err(error) => end(tx, Some(error)).await.map(|()| None),
        },
    }
}

async fn end<DB: Database>(tx: Transaction<'_, DB>, failed: Option<Error>) -> Result<(), Error> {
    match failed {
        None => tx.commit_unnamed().await,
        Some(error) => {
            // The error of the statement tells more than one of the rollback.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}
