//! sqlx's `Executor` on everything that users pass to it.
//!
//! Responsible for `&mut Conn`, `&mut PoolConnection`, `&mut Transaction` and `&Pool`. One impl per
//! database for the guards: a generic one overflows the trait solver in users' code (E0275), which
//! is why sqlx has none for its own guards.

use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::TryStreamExt;
use sqlx::{Database, Describe, Either, Error, Execute, Executor, SqlStr};

use super::Pool;
use super::conn::Conn;
use super::flight::{Answer, Rows, Told, tell};
use super::transaction::DoomedTransaction;
use crate::registry::HolderKind;

type Results<'e, DB> =
    BoxStream<'e, Result<Either<<DB as Database>::QueryResult, <DB as Database>::Row>, Error>>;

/// The executor of every guard, once.
mod seen {
    use super::*;

    pub(super) fn fetch_many<'e, 'q: 'e, DB: Database, E>(
        conn: &'e mut Conn<DB>,
        query: E,
    ) -> Results<'e, DB>
    where
        E: 'q + Execute<'q, DB>,
        &'e mut DB::Connection: Executor<'e, Database = DB>,
    {
        if conn.conduct.doomed {
            return Box::pin(futures_util::stream::once(async {
                Err(DoomedTransaction::error())
            }));
        }
        let cell = conn.cell().clone();
        let query = Told::new(query, &cell, conn.monitor());
        Box::pin(Rows::<DB>::new(conn.raw_mut().fetch_many(query), &cell))
    }

    pub(super) fn fetch_optional<'e, 'q: 'e, DB: Database, E>(
        conn: &'e mut Conn<DB>,
        query: E,
    ) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
    where
        E: 'q + Execute<'q, DB>,
        &'e mut DB::Connection: Executor<'e, Database = DB>,
    {
        if conn.conduct.doomed {
            return Box::pin(std::future::ready(Err(DoomedTransaction::error())));
        }
        let cell = conn.cell().clone();
        let query = Told::new(query, &cell, conn.monitor());
        Box::pin(Answer::new(conn.raw_mut().fetch_optional(query), &cell))
    }

    pub(super) fn prepare_with<'e, DB: Database>(
        conn: &'e mut Conn<DB>,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
    ) -> BoxFuture<'e, Result<DB::Statement, Error>>
    where
        &'e mut DB::Connection: Executor<'e, Database = DB>,
    {
        if conn.conduct.doomed {
            return Box::pin(std::future::ready(Err(DoomedTransaction::error())));
        }
        let cell = conn.cell().clone();
        tell::<DB>(&sql, &cell, conn.monitor());
        Box::pin(Answer::new(
            conn.raw_mut().prepare_with(sql, parameters),
            &cell,
        ))
    }

    pub(super) fn describe<'e, DB: Database>(
        conn: &'e mut Conn<DB>,
        sql: SqlStr,
    ) -> BoxFuture<'e, Result<Describe<DB>, Error>>
    where
        &'e mut DB::Connection: Executor<'e, Database = DB>,
    {
        if conn.conduct.doomed {
            return Box::pin(std::future::ready(Err(DoomedTransaction::error())));
        }
        let cell = conn.cell().clone();
        tell::<DB>(&sql, &cell, conn.monitor());
        Box::pin(Answer::new(conn.raw_mut().describe(sql), &cell))
    }
}

macro_rules! executor {
    ($db:ty, $guard:ty, $conn:expr) => {
        impl<'c> Executor<'c> for &'c mut $guard {
            type Database = $db;

            fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Results<'e, $db>
            where
                'c: 'e,
                E: 'q + Execute<'q, $db>,
            {
                let conn: fn(Self) -> &'c mut Conn<$db> = $conn;
                seen::fetch_many(conn(self), query)
            }

            fn fetch_optional<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxFuture<'e, Result<Option<<$db as Database>::Row>, Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, $db>,
            {
                let conn: fn(Self) -> &'c mut Conn<$db> = $conn;
                seen::fetch_optional(conn(self), query)
            }

            fn prepare_with<'e>(
                self,
                sql: SqlStr,
                parameters: &'e [<$db as Database>::TypeInfo],
            ) -> BoxFuture<'e, Result<<$db as Database>::Statement, Error>>
            where
                'c: 'e,
            {
                let conn: fn(Self) -> &'c mut Conn<$db> = $conn;
                seen::prepare_with(conn(self), sql, parameters)
            }

            fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<$db>, Error>>
            where
                'c: 'e,
            {
                let conn: fn(Self) -> &'c mut Conn<$db> = $conn;
                seen::describe(conn(self), sql)
            }
        }
    };
    ($feature:literal, $db:ty) => {
        #[cfg(feature = $feature)]
        executor!($db, Conn<$db>, |conn| conn);
        #[cfg(feature = $feature)]
        executor!($db, super::PoolConnection<$db>, |guard| guard.executor());
        #[cfg(feature = $feature)]
        executor!($db, super::Transaction<'_, $db>, |guard| guard.executor());
    };
}

executor!("postgres", sqlx::Postgres);
executor!("mysql", sqlx::MySql);
executor!("sqlite", sqlx::Sqlite);
executor!("any", sqlx::Any);

impl<'p, DB: Database> Executor<'p> for &'_ Pool<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    type Database = DB;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Results<'e, DB>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let pool = self.clone();
        Box::pin(async_stream::try_stream! {
            let mut conn = pool.checkout(HolderKind::Statement, None).await?;
            let mut results = seen::fetch_many(&mut conn, query);
            while let Some(result) = results.try_next().await? {
                yield result;
            }
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut conn = pool.checkout(HolderKind::Statement, None).await?;
            seen::fetch_optional(&mut conn, query).await
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
    ) -> BoxFuture<'e, Result<DB::Statement, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut conn = pool.checkout(HolderKind::Statement, None).await?;
            seen::prepare_with(&mut conn, sql, parameters).await
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<DB>, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut conn = pool.checkout(HolderKind::Statement, None).await?;
            seen::describe(&mut conn, sql).await
        })
    }
}
