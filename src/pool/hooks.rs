//! What sqlx's hooks can do for us, together with the user's.
//!
//! Responsible for learning which backend a connection has, when it is acquired, and for settling
//! connections that come back by sqlx's own path. Hooks run in the task of the acquire or return, so
//! a task-local carries what they learn, and what need not be asked. Not responsible for guards of
//! ours: those settle before sqlx sees the connection.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures_core::future::BoxFuture;
use sqlx::pool::{PoolConnectionMetadata, PoolOptions};
use sqlx::{Database, Error};

use super::alive::{Alive, Backends, Made};
use super::probe::{self, Found};
use super::witness::{self, Server};
use crate::monitor::Monitor;
use crate::registry::PoolRecord;

thread_local! {
    /// What the poll of an acquire that runs on this thread has learned; `None` outside of any.
    static LEARNING: Cell<Option<Learned>> = const { Cell::new(None) };
}

tokio::task_local! {
    /// The connection that returns here was settled by its guard.
    static PROVEN: RefCell<Option<Leaving>>;
}

/// A connection that is closed because there are too many. Until that is done, it counts as gone
/// where others are looked at: several that come back at once are not all too many.
struct Leaving(Arc<PoolRecord>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.habits.left();
    }
}

/// As long as a return may take where nothing else was said.
const LIMIT: Duration = Duration::from_secs(5);

/// What hooks learn of the connection that is being acquired.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Learned {
    backend: Option<i64>,
    /// When the poll began.
    polled_at: Option<Instant>,
}

impl Learned {
    /// Polls an acquire; what hooks learn in it is kept here.
    pub(super) fn during<R>(&mut self, poll: impl FnOnce() -> R) -> R {
        /// Also while a panic of a user's hook unwinds.
        struct Restore(Option<Learned>);
        impl Drop for Restore {
            fn drop(&mut self) {
                let _ = LEARNING.try_with(|cell| cell.set(self.0));
            }
        }
        self.polled_at = Some(Instant::now());
        // A hook may acquire from another pool: its poll lies within this one.
        let _restore = Restore(LEARNING.replace(Some(*self)));
        let polled = poll();
        if let Some(learned) = LEARNING.get() {
            *self = learned;
        }
        polled
    }

    pub(super) fn backend(self) -> Option<i64> {
        self.backend
    }

    /// When a connection of that age was made; `None` outside of an acquire.
    fn made(age: Duration) -> Option<Made> {
        let before = LEARNING.get()?.polled_at?;
        Made::within(before, Instant::now(), age)
    }

    /// Notes the backend for the acquire that is being polled, if there is one: the pool's own
    /// maintenance opens connections too.
    fn note(backend: Option<i64>) {
        if let Some(learned) = LEARNING.get() {
            LEARNING.set(Some(Self { backend, ..learned }));
        }
    }
}

/// Returns a connection that need not be settled. No `async fn`: that would keep room for the future
/// twice, and sqlx's is large.
pub(super) fn proven<F: Future<Output = ()>>(returning: F) -> impl Future<Output = ()> + use<F> {
    PROVEN.scope(RefCell::new(None), returning)
}

pub(super) type Hook<DB, T> = Arc<
    dyn for<'c> Fn(
            &'c mut <DB as Database>::Connection,
            PoolConnectionMetadata,
        ) -> BoxFuture<'c, Result<T, Error>>
        + Send
        + Sync,
>;

/// The user's hooks.
pub(super) struct Hooks<DB: Database> {
    pub(super) after_connect: Option<Hook<DB, ()>>,
    pub(super) before_acquire: Option<Hook<DB, bool>>,
    pub(super) after_release: Option<Hook<DB, bool>>,
}

impl<DB: Database> Default for Hooks<DB> {
    fn default() -> Self {
        Self {
            after_connect: None,
            before_acquire: None,
            after_release: None,
        }
    }
}

impl<DB: Database> Clone for Hooks<DB> {
    fn clone(&self) -> Self {
        Self {
            after_connect: self.after_connect.clone(),
            before_acquire: self.before_acquire.clone(),
            after_release: self.after_release.clone(),
        }
    }
}

/// Who is told of what the hooks find; known once the pool is watched.
pub(super) type Told = Arc<OnceLock<(Monitor, Weak<PoolRecord>)>>;

/// What our hooks do beside the user's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    /// Learn the backend of each connection.
    pub(super) identify: bool,
    /// A connection that has been idle for less is given out without a question.
    pub(super) bypass: Duration,
    /// There are more connections for a while than stay.
    pub(super) overflows: bool,
}

impl<DB: Database> Hooks<DB> {
    /// The user's hooks alone.
    pub(super) fn alone(self, mut raw: PoolOptions<DB>) -> PoolOptions<DB> {
        if let Some(user) = self.after_connect {
            raw = raw.after_connect(move |conn, meta| user(conn, meta));
        }
        if let Some(user) = self.before_acquire {
            raw = raw.before_acquire(move |conn, meta| user(conn, meta));
        }
        if let Some(user) = self.after_release {
            raw = raw.after_release(move |conn, meta| user(conn, meta));
        }
        raw
    }

    /// Puts ours around them.
    pub(super) fn install(
        self,
        mut raw: PoolOptions<DB>,
        ours: Ours,
        told: Told,
    ) -> PoolOptions<DB> {
        let Self {
            after_connect,
            before_acquire,
            after_release,
        } = self;
        let backends = ours.identify.then(|| Arc::new(Backends::default()));
        if let Some(backends) = &backends {
            let backends = Arc::clone(backends);
            let lifetime = raw.get_max_lifetime();
            raw = raw.after_connect(move |conn, meta| {
                let user = after_connect.clone();
                let backends = Arc::clone(&backends);
                Box::pin(async move {
                    let backend = witness::backend::<DB>(conn).await?;
                    if let Some(user) = user {
                        user(conn, meta).await?;
                    }
                    Learned::note(backend);
                    if let Some(backend) = backend {
                        // Last: sqlx notes the moment in this very poll.
                        backends.connected(backend, Instant::now(), lifetime);
                    }
                    Ok(())
                })
            });
        } else if let Some(user) = after_connect {
            raw = raw.after_connect(move |conn, meta| user(conn, meta));
        }
        let asks = raw.get_test_before_acquire();
        if asks && (backends.is_some() || !ours.bypass.is_zero()) {
            raw = raw
                .test_before_acquire(false)
                .before_acquire(move |conn, meta| {
                    let made = Learned::made(meta.age);
                    if is_alive(backends.as_deref(), made, meta.idle_for < ours.bypass) {
                        // Decided before anything is boxed.
                        return match &before_acquire {
                            Some(user) => user(conn, meta),
                            None => Box::pin(Alive),
                        };
                    }
                    let user = before_acquire.clone();
                    let backends = backends.clone();
                    Box::pin(async move {
                        if let Err(error) = ask::<DB>(conn, backends.as_deref(), made).await {
                            // As sqlx says it of its ping: the other end has hung up, no surprise.
                            tracing::info!(target: "leaktrace::pool", %error, "an idle connection does not answer");
                            return Ok(false);
                        }
                        match user {
                            Some(user) => user(conn, meta).await,
                            None => Ok(true),
                        }
                    })
                });
        } else if let Some(user) = before_acquire {
            raw = raw.before_acquire(move |conn, meta| user(conn, meta));
        }
        raw.after_release(move |conn, meta| {
            let is_proven = PROVEN.try_with(|_| ()).is_ok();
            if is_proven && !ours.overflows {
                return match &after_release {
                    Some(user) => user(conn, meta),
                    None => Box::pin(Alive),
                };
            }
            let user = after_release.clone();
            let told = Arc::clone(&told);
            Box::pin(async move {
                if !is_proven {
                    match settle_in_time::<DB>(conn, &told).await {
                        Ok(Found::Clean) => {}
                        Ok(Found::Dirty) => {
                            if let Some((monitor, record)) = told.get()
                                && let Some(record) = record.upgrade()
                            {
                                monitor.dirty_without_holder(&record);
                            }
                        }
                        Err(error) => {
                            tracing::debug!(target: "leaktrace::pool", %error, "a connection could not be settled");
                            return Ok(false);
                        }
                    }
                }
                if ours.overflows && is_too_many(&told) {
                    return Ok(false);
                }
                match user {
                    Some(user) => user(conn, meta).await,
                    None => Ok(true),
                }
            })
        })
    }
}

/// Whether a connection is given out without a question. Its backend, if that matters, is known
/// then.
fn is_alive(backends: Option<&Backends>, made: Option<Made>, is_fresh: bool) -> bool {
    match (is_fresh, backends, made) {
        (false, ..) => false,
        (true, None, _) => true,
        // Taken from the raw pool: nobody wants to know which backend it is.
        (true, Some(_), None) => true,
        (true, Some(backends), Some(made)) => match backends.of(made) {
            Some(backend) => {
                Learned::note(Some(backend));
                true
            }
            None => false,
        },
    }
}

/// Asks whether the connection is alive, and where that is wanted for its backend in one go.
async fn ask<DB: Database>(
    conn: &mut DB::Connection,
    backends: Option<&Backends>,
    made: Option<Made>,
) -> Result<(), Error> {
    let Some(backends) = backends else {
        return sqlx::Connection::ping(conn).await;
    };
    let backend = witness::backend::<DB>(conn).await?;
    Learned::note(backend);
    if let (Some(backend), Some(made)) = (backend, made) {
        backends.learned(backend, made);
    }
    Ok(())
}

/// Whether there are more connections than stay, and nobody waits for one. If so, the connection is
/// closed.
fn is_too_many(told: &Told) -> bool {
    let Some(record) = told.get().and_then(|(_, record)| record.upgrade()) else {
        return false;
    };
    if !record.leaves() {
        return false;
    }
    let leaving = Leaving(record);
    // Without a guard of ours nobody says when it is closed: then it counts as gone now.
    let _ = PROVEN.try_with(|slot| *slot.borrow_mut() = Some(leaving));
    true
}

/// Settles, with a limit where the driver may wait for an answer that never comes.
async fn settle_in_time<DB: Database>(
    conn: &mut DB::Connection,
    told: &Told,
) -> Result<Found, Error> {
    if Server::of::<DB>(conn) != Server::MySql {
        return probe::settle::<DB>(conn).await;
    }
    let record = told.get().and_then(|(_, record)| record.upgrade());
    let limit = record.map_or(LIMIT, |record| record.returns.limit());
    match tokio::time::timeout(limit, probe::settle::<DB>(conn)).await {
        Ok(settled) => settled,
        Err(_) => Err(Error::Protocol("no answer within the limit".into())),
    }
}
