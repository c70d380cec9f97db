//! The start of a pool: tries, pauses, warm-up.
//!
//! Responsible for opening what is to be open before `connect` answers, and for saying why it could
//! not be. Not responsible for what is connected with: see `connect`.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::{Either, select};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Database, Error, Executor};

use super::connect::Options;
use super::error::{ConnectError, WarmUp, is_transient, said};
use super::settings::{Key, PoolSettings};
use super::tls::TlsFault;
use crate::{Pool, PoolConnection, PoolOptions};

tokio::task_local! {
    /// How many connections of the pool that this task opens are there.
    static OPENED: Cell<u32>;
}

/// A connection of a pool is there. Called by the hook of our options.
pub(super) fn opened() {
    // Also while the service runs, where nobody counts.
    let _ = OPENED.try_with(|count| count.set(count.get().saturating_add(1)));
}

/// After how long without another connection the server is asked why.
const PROGRESS: Duration = Duration::from_millis(500);

/// The pause after that many tries: 200 ms, doubled, at most 5 s.
fn pause(tries: u32) -> Duration {
    let factor = 1_u32 << tries.saturating_sub(1).min(10);
    (Duration::from_millis(200) * factor).min(Duration::from_secs(5))
}

impl PoolSettings {
    /// Opens the pool, and answers when the server has taken a connection, which is the pool's first.
    ///
    /// A server that is still starting is tried again, after pauses of 0.2 s to 5 s, with a line at
    /// WARN for each try. What another try cannot help (a password, TLS, a database that is not
    /// there) ends it at once. These tries are made beside the pool, because sqlx's pool keeps to
    /// itself what the server says; sqlx takes no connection that was opened elsewhere, so the one
    /// that came through is closed, and the pool opens its own.
    ///
    /// With [`warm_up`](Self::warm_up) all [`min_connections`](Self::min_connections) are there too,
    /// opened one after another as sqlx does it, all of them within the acquire timeout; without, they
    /// are opened behind it. Neither is a checkout that anybody waits for, so neither is reported.
    /// For `Any`, call `sqlx::any::install_default_drivers()` before.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect<DB: Database>(&self) -> Result<Pool<DB>, ConnectError>
    where
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    {
        self.connect_with(self.options()).await
    }

    /// As [`connect`](Self::connect), with [options](Self::options) that were changed by hand, such
    /// as another monitor.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_with<DB: Database>(
        &self,
        options: PoolOptions<DB>,
    ) -> Result<Pool<DB>, ConnectError>
    where
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    {
        let connect = self.connect_options::<DB>()?;
        let place = self.link()?.place();
        self.first::<DB>(&connect, &place).await?;
        let min = options.get_min_connections();
        if min == 0 || self.warm_up {
            return self.opened(options, connect, place).await;
        }
        let pool = options.connect_lazy_with(connect);
        let mut warm = Vec::new();
        // The first one here, so that there is one.
        warm.extend(open_one(&pool).await);
        tokio::spawn(open(pool.clone(), warm, min));
        Ok(pool)
    }

    /// Has sqlx open what is to be there before the pool is watched: nothing waits for a checkout.
    async fn opened<DB: Database>(
        &self,
        options: PoolOptions<DB>,
        connect: Options<DB>,
        place: String,
    ) -> Result<Pool<DB>, ConnectError>
    where
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    {
        let wanted = options.get_min_connections().max(1);
        let limit = options.get_acquire_timeout();
        let opening = options.connect_with(connect.clone());
        // The server's last words, from beside the pool while nothing moves in it.
        let mut words = None;
        let (opened, count) = OPENED
            .scope(Cell::new(0), async {
                let mut opening = std::pin::pin!(opening);
                let opened = loop {
                    let before = OPENED.with(Cell::get);
                    let rest = std::pin::pin!(tokio::time::sleep(PROGRESS));
                    match select(opening.as_mut(), rest).await {
                        Either::Left((opened, _)) => break opened,
                        Either::Right(_) if OPENED.with(Cell::get) > before => continue,
                        Either::Right(_) => {}
                    }
                    let asked = std::pin::pin!(self.attempt::<DB>(&connect));
                    match select(opening.as_mut(), asked).await {
                        Either::Left((opened, _)) => break opened,
                        Either::Right((answer, _)) => words = answer.err(),
                    }
                };
                (opened, OPENED.with(Cell::get))
            })
            .await;
        opened.map_err(|error| {
            let source = match (error, words) {
                (Error::PoolTimedOut, Some(words)) => words,
                (error, _) => error,
            };
            ConnectError::WarmUp(WarmUp {
                place,
                opened: count,
                wanted,
                limit,
                min: self.origin(Key::Min),
                acquire: self.origin(Key::Acquire),
                source,
            })
        })
    }

    /// Connects once beside the pool, which would hide why it cannot.
    async fn first<DB: Database>(
        &self,
        options: &Options<DB>,
        place: &str,
    ) -> Result<(), ConnectError>
    where
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    {
        let limit = self.get_connect_timeout();
        let mut tries = 0;
        loop {
            tries += 1;
            let attempt = tokio::time::timeout(limit, self.attempt::<DB>(options));
            let source = match attempt.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => Error::PoolTimedOut,
            };
            if let Some(fault) = TlsFault::of(&source) {
                let place = place.to_string();
                return Err(ConnectError::Tls {
                    place,
                    fault,
                    source,
                });
            }
            if tries >= self.tries || !is_transient(&source) {
                let place = place.to_string();
                return Err(ConnectError::Failed {
                    place,
                    tries,
                    source,
                });
            }
            let pause = pause(tries);
            tracing::warn!(
                target: "leaktrace::kit",
                "{place}: try {tries} of {}: {}; again in {}",
                self.tries,
                said(&source),
                humantime::format_duration(pause),
            );
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt<DB: Database>(&self, options: &Options<DB>) -> Result<(), Error>
    where
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    {
        let mut conn = options.connect().await?;
        if let Some(session) = self.session() {
            sqlx::raw_sql(AssertSqlSafe(session))
                .execute(&mut conn)
                .await?;
        }
        conn.close().await
    }
}

/// How often in a row a connection may not come in time before the rest is left to who needs it.
const TRIES: u32 = 5;

/// Opens connections behind a pool that is in use, one after another, and gives them back.
///
/// Each is held until the last one is there: the pool would give out the same one again.
async fn open<DB: Database>(pool: Pool<DB>, mut warm: Vec<PoolConnection<DB>>, min: u32) {
    let mut failed = 0;
    while pool.size() < min && failed < TRIES && !pool.is_closed() {
        match open_one(&pool).await {
            Some(conn) => {
                failed = 0;
                warm.push(conn);
            }
            None => {
                failed += 1;
                tokio::time::sleep(pause(failed)).await;
            }
        }
    }
    if pool.size() < min && !pool.is_closed() {
        tracing::info!(
            target: "leaktrace::kit",
            pool = pool.name(),
            "pool \"{}\": {} of {min} connections are there; the rest is opened by who needs it",
            pool.name(),
            pool.size(),
        );
    }
    for conn in warm {
        conn.release().await;
    }
}

/// One more connection, unless that takes so long that it would be reported as a wait. What it fails
/// with, the acquire that needs the connection will say.
async fn open_one<DB: Database>(pool: &Pool<DB>) -> Option<PoolConnection<DB>> {
    let patience = pool.monitor().config().get_wait() / 2;
    let acquire = pool.labeled("warm-up").unreported().acquire();
    // In a task of its own: who holds one and asks for another one would be a nested checkout.
    let acquired = tokio::spawn(tokio::time::timeout(patience, acquire));
    acquired.await.ok()?.ok()?.ok()
}
