//! How a statement is run so that it is seen.
//!
//! Responsible for [`Seen`]: the four ways to run a statement, on a connection and on the pool. Not
//! responsible for the surface that users call (`executor`) or for what is noted (`flight`).

use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::TryStreamExt;
use sqlx::{Database, Describe, Either, Error, Execute, Executor, SqlStr};

use super::Pool;
use super::conn::Conn;
use super::doomed::DoomedTransaction;
use super::flight::{Answer, Rows, Told, tell};
use super::unprepared;
use crate::registry::HolderKind;
use crate::site::CallSite;

pub(super) type Results<'e, DB> =
    BoxStream<'e, Result<Either<<DB as Database>::QueryResult, <DB as Database>::Row>, Error>>;

/// Runs a query on a connection, seen.
pub(super) fn direct<'e, 'c: 'e, 'q: 'e, DB, E>(
    conn: &'c mut Conn<DB>,
    query: E,
    by: Option<CallSite>,
) -> Results<'e, DB>
where
    DB: Database,
    for<'a> &'a mut DB::Connection: Executor<'a, Database = DB>,
    E: 'q + Execute<'q, DB>,
{
    let cell = conn.used_by(by);
    let query = Told::new(query, &cell, conn.monitor());
    Box::pin(Rows::<DB>::new(conn.raw_mut().fetch_many(query), &cell))
}

/// Runs a query on a connection for its first row, seen.
pub(super) fn direct_optional<'e, 'c: 'e, 'q: 'e, DB, E>(
    conn: &'c mut Conn<DB>,
    query: E,
    by: Option<CallSite>,
) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
where
    DB: Database,
    for<'a> &'a mut DB::Connection: Executor<'a, Database = DB>,
    E: 'q + Execute<'q, DB>,
{
    let cell = conn.used_by(by);
    let query = Told::new(query, &cell, conn.monitor());
    Box::pin(Answer::new(conn.raw_mut().fetch_optional(query), &cell))
}

/// Whether a statement may be given a name on this connection.
fn may_prepare<DB: Database>(conn: &Conn<DB>) -> Result<(), Error> {
    if conn.is_doomed() {
        return Err(DoomedTransaction::error());
    }
    if conn.is_unprepared() {
        return Err(unprepared::refusal());
    }
    Ok(())
}

/// What an executor does, once for all guards and once for the pool.
pub(super) trait Seen<'c, DB: Database>: Sized + Send {
    fn many<'e, 'q: 'e, E>(self, query: E, by: Option<CallSite>) -> Results<'e, DB>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>;

    fn optional<'e, 'q: 'e, E>(
        self,
        query: E,
        by: Option<CallSite>,
    ) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>;

    fn prepared<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
        by: Option<CallSite>,
    ) -> BoxFuture<'e, Result<DB::Statement, Error>>
    where
        'c: 'e;

    fn described<'e>(
        self,
        sql: SqlStr,
        by: Option<CallSite>,
    ) -> BoxFuture<'e, Result<Describe<DB>, Error>>
    where
        'c: 'e;
}

impl<'c, DB: Database> Seen<'c, DB> for &'c mut Conn<DB>
where
    for<'a> &'a mut DB::Connection: Executor<'a, Database = DB>,
{
    fn many<'e, 'q: 'e, E>(self, query: E, by: Option<CallSite>) -> Results<'e, DB>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>,
    {
        if self.is_doomed() {
            let doomed = std::future::ready(Err(DoomedTransaction::error()));
            return Box::pin(futures_util::stream::once(doomed));
        }
        if self.is_unprepared() {
            return unprepared::many(self, query, by);
        }
        direct(self, query, by)
    }

    fn optional<'e, 'q: 'e, E>(
        self,
        query: E,
        by: Option<CallSite>,
    ) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>,
    {
        if self.is_doomed() {
            return Box::pin(std::future::ready(Err(DoomedTransaction::error())));
        }
        if self.is_unprepared() {
            return Box::pin(unprepared::optional(self, query, by));
        }
        direct_optional(self, query, by)
    }

    fn prepared<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
        by: Option<CallSite>,
    ) -> BoxFuture<'e, Result<DB::Statement, Error>>
    where
        'c: 'e,
    {
        if let Err(refused) = may_prepare(self) {
            return Box::pin(std::future::ready(Err(refused)));
        }
        let cell = self.used_by(by);
        tell::<DB>(&sql, &cell, self.monitor());
        cell.prepared();
        let prepared = self.raw_mut().prepare_with(sql, parameters);
        Box::pin(Answer::new(prepared, &cell))
    }

    fn described<'e>(
        self,
        sql: SqlStr,
        by: Option<CallSite>,
    ) -> BoxFuture<'e, Result<Describe<DB>, Error>>
    where
        'c: 'e,
    {
        if let Err(refused) = may_prepare(self) {
            return Box::pin(std::future::ready(Err(refused)));
        }
        let cell = self.used_by(by);
        tell::<DB>(&sql, &cell, self.monitor());
        cell.prepared();
        Box::pin(Answer::new(self.raw_mut().describe(sql), &cell))
    }
}

impl<'p, DB: Database> Seen<'p, DB> for &Pool<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    fn many<'e, 'q: 'e, E>(self, query: E, by: Option<CallSite>) -> Results<'e, DB>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let checkout = self.checkout(HolderKind::Statement, by);
        Box::pin(async_stream::try_stream! {
            let mut conn = checkout.await?;
            let mut results = (&mut conn).many(query, None);
            while let Some(result) = results.try_next().await? {
                yield result;
            }
        })
    }

    fn optional<'e, 'q: 'e, E>(
        self,
        query: E,
        by: Option<CallSite>,
    ) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let checkout = self.checkout(HolderKind::Statement, by);
        Box::pin(async move {
            let mut conn = checkout.await?;
            (&mut conn).optional(query, None).await
        })
    }

    fn prepared<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
        by: Option<CallSite>,
    ) -> BoxFuture<'e, Result<DB::Statement, Error>>
    where
        'p: 'e,
    {
        let checkout = self.checkout(HolderKind::Statement, by);
        Box::pin(async move {
            let mut conn = checkout.await?;
            (&mut conn).prepared(sql, parameters, None).await
        })
    }

    fn described<'e>(
        self,
        sql: SqlStr,
        by: Option<CallSite>,
    ) -> BoxFuture<'e, Result<Describe<DB>, Error>>
    where
        'p: 'e,
    {
        let checkout = self.checkout(HolderKind::Statement, by);
        Box::pin(async move {
            let mut conn = checkout.await?;
            (&mut conn).described(sql, None).await
        })
    }
}
