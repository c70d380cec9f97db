//! sqlx's `Executor` on everything that users pass to it.
//!
//! Responsible for the surface of `&mut Conn`, `&mut PoolConnection`, `&mut Transaction` and `&Pool`;
//! what happens below it is in `seen`. One impl per
//! database for the guards: a generic one overflows the trait solver in users' code (E0275), which
//! is why sqlx has none for its own guards.
//!
//! Every method is written out, also where sqlx has a default, and is `#[track_caller]`: so a direct
//! call (`conn.execute("…")`) is seen with its line. Called through a query (`query.execute(conn)`),
//! the caller is sqlx, and [`user`] says that there is no line.

use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use sqlx::{Database, Describe, Error, Execute, Executor, SqlStr};

use super::Pool;
use super::conn::Conn;
use super::seen::{Results, Seen};
use crate::site::CallSite;

/// The calling line, when it is the user's own.
#[track_caller]
fn user() -> Option<CallSite> {
    Some(CallSite::caller()).filter(|site| !site.is_between())
}

/// What sqlx's default methods make of the results: the counts alone.
fn counts<'e, DB: Database>(
    results: Results<'e, DB>,
) -> BoxStream<'e, Result<DB::QueryResult, Error>> {
    results.try_filter_map(async |step| Ok(step.left())).boxed()
}

/// What sqlx's default methods make of the results: the rows alone.
fn rows<'e, DB: Database>(results: Results<'e, DB>) -> BoxStream<'e, Result<DB::Row, Error>> {
    results
        .try_filter_map(async |step| Ok(step.right()))
        .boxed()
}

/// The one row that there must be.
fn one<'e, R: Send + 'e>(
    row: BoxFuture<'e, Result<Option<R>, Error>>,
) -> BoxFuture<'e, Result<R, Error>> {
    Box::pin(row.and_then(async |row| row.ok_or(Error::RowNotFound)))
}

/// The methods of `Executor`, from four that are given: `$self.many`, `.optional`, `.prepared` and
/// `.described`, each with the calling line.
macro_rules! methods {
    ($c:lifetime, $db:ty) => {
        type Database = $db;

        #[track_caller]
        fn execute<'e, 'q: 'e, E>(
            self,
            query: E,
        ) -> BoxFuture<'e, Result<<$db as Database>::QueryResult, Error>>
        where
            $c: 'e,
            E: 'q + Execute<'q, $db>,
        {
            Box::pin(counts::<$db>(self.many(query, user())).try_collect())
        }

        #[track_caller]
        fn execute_many<'e, 'q: 'e, E>(
            self,
            query: E,
        ) -> BoxStream<'e, Result<<$db as Database>::QueryResult, Error>>
        where
            $c: 'e,
            E: 'q + Execute<'q, $db>,
        {
            counts::<$db>(self.many(query, user()))
        }

        #[track_caller]
        fn fetch<'e, 'q: 'e, E>(
            self,
            query: E,
        ) -> BoxStream<'e, Result<<$db as Database>::Row, Error>>
        where
            $c: 'e,
            E: 'q + Execute<'q, $db>,
        {
            rows::<$db>(self.many(query, user()))
        }

        #[track_caller]
        fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Results<'e, $db>
        where
            $c: 'e,
            E: 'q + Execute<'q, $db>,
        {
            self.many(query, user())
        }

        #[track_caller]
        fn fetch_all<'e, 'q: 'e, E>(
            self,
            query: E,
        ) -> BoxFuture<'e, Result<Vec<<$db as Database>::Row>, Error>>
        where
            $c: 'e,
            E: 'q + Execute<'q, $db>,
        {
            Box::pin(rows::<$db>(self.many(query, user())).try_collect())
        }

        #[track_caller]
        fn fetch_one<'e, 'q: 'e, E>(
            self,
            query: E,
        ) -> BoxFuture<'e, Result<<$db as Database>::Row, Error>>
        where
            $c: 'e,
            E: 'q + Execute<'q, $db>,
        {
            one(self.optional(query, user()))
        }

        #[track_caller]
        fn fetch_optional<'e, 'q: 'e, E>(
            self,
            query: E,
        ) -> BoxFuture<'e, Result<Option<<$db as Database>::Row>, Error>>
        where
            $c: 'e,
            E: 'q + Execute<'q, $db>,
        {
            self.optional(query, user())
        }

        #[track_caller]
        fn prepare<'e>(
            self,
            sql: SqlStr,
        ) -> BoxFuture<'e, Result<<$db as Database>::Statement, Error>>
        where
            $c: 'e,
        {
            self.prepared(sql, &[], user())
        }

        #[track_caller]
        fn prepare_with<'e>(
            self,
            sql: SqlStr,
            parameters: &'e [<$db as Database>::TypeInfo],
        ) -> BoxFuture<'e, Result<<$db as Database>::Statement, Error>>
        where
            $c: 'e,
        {
            self.prepared(sql, parameters, user())
        }

        #[track_caller]
        fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<$db>, Error>>
        where
            $c: 'e,
        {
            self.described(sql, user())
        }
    };
}

macro_rules! executor {
    ($feature:literal, $db:ty) => {
        #[cfg(feature = $feature)]
        impl<'c> Executor<'c> for &'c mut Conn<$db> {
            methods!('c, $db);
        }
        #[cfg(feature = $feature)]
        executor!($db, super::PoolConnection<$db>);
        #[cfg(feature = $feature)]
        executor!($db, super::Transaction<'_, $db>);
    };
    ($db:ty, $guard:ty) => {
        impl<'c> Executor<'c> for &'c mut $guard {
            methods!('c, $db);
        }

        impl<'c> Seen<'c, $db> for &'c mut $guard {
            fn many<'e, 'q: 'e, E>(self, query: E, by: Option<CallSite>) -> Results<'e, $db>
            where
                'c: 'e,
                E: 'q + Execute<'q, $db>,
            {
                self.executor().many(query, by)
            }

            fn optional<'e, 'q: 'e, E>(
                self,
                query: E,
                by: Option<CallSite>,
            ) -> BoxFuture<'e, Result<Option<<$db as Database>::Row>, Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, $db>,
            {
                self.executor().optional(query, by)
            }

            fn prepared<'e>(
                self,
                sql: SqlStr,
                parameters: &'e [<$db as Database>::TypeInfo],
                by: Option<CallSite>,
            ) -> BoxFuture<'e, Result<<$db as Database>::Statement, Error>>
            where
                'c: 'e,
            {
                self.executor().prepared(sql, parameters, by)
            }

            fn described<'e>(
                self,
                sql: SqlStr,
                by: Option<CallSite>,
            ) -> BoxFuture<'e, Result<Describe<$db>, Error>>
            where
                'c: 'e,
            {
                self.executor().described(sql, by)
            }
        }
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
    methods!('p, DB);
}
