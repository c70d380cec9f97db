//! How a connection is asked for.
//!
//! Responsible for seeing that an acquire waits, for making the record when it is granted, and for
//! sqlx's `Acquire`. Not responsible for why it waits.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::future::BoxFuture;
use pin_project_lite::pin_project;
use sqlx::{Acquire, Database, Error};
use sqlx_core::pool::MaybePoolConnection;

use super::checkout::Checkout;
use super::conn::Conn;
use super::connection::PoolConnection;
use super::doomed::DoomedTransaction;
use super::hooks::Learned;
use super::strict::StrictError;
use super::transaction::Transaction;
use super::{CallSite, Pool, Watched};
use crate::clock::Moment;
use crate::registry::{Holder, HolderKind, Owner, Phase, Waiting};
use crate::scope::Scope;
use crate::site::Location;

impl<DB: Database> Pool<DB> {
    /// Waits for a connection and registers its holder. Takes along what it needs, and no more: each
    /// share of a pool is counted.
    ///
    /// # Cancel safety
    /// Before the grant, sqlx gives up its place. From the grant on there is no await point.
    pub(super) fn checkout(
        &self,
        kind: HolderKind,
        site: Option<CallSite>,
    ) -> impl Future<Output = Result<Conn<DB>, Error>> + Send + 'static + use<DB> {
        self.checkout_as(kind, site, |conn| conn)
    }

    /// The same, as the guard that `guard` makes of it.
    #[inline]
    pub(super) fn checkout_as<T: 'static>(
        &self,
        kind: HolderKind,
        site: Option<CallSite>,
        guard: fn(Conn<DB>) -> T,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<DB, T> {
        Wait {
            acquire: self.raw.acquire(),
            ask: Some(self.ask(kind, site)),
            then: move |granted, watched: Watched| guard(watched.grant(granted, kind, site)),
        }
    }

    fn ask(&self, kind: HolderKind, site: Option<CallSite>) -> Ask {
        Ask {
            learned: self.record().learns().then(Learned::default),
            watched: self.watched.clone(),
            kind,
            site,
            polls: 0,
            since: None,
            waiting: None,
        }
    }

    pub(super) fn try_checkout(&self, kind: HolderKind, site: CallSite) -> Option<Conn<DB>> {
        let asking = self.record().asks();
        let raw = self.raw.try_acquire()?;
        drop(asking);
        self.monitor().granted(self.record(), kind, Duration::ZERO);
        let granted = Granted {
            raw,
            backend: None,
            waited: Duration::ZERO,
        };
        Some(self.watched.clone().grant(granted, kind, Some(site)))
    }
}

/// What sqlx has granted.
struct Granted<DB: Database> {
    raw: sqlx::pool::PoolConnection<DB>,
    /// The server's name of its backend, where that was learned.
    backend: Option<i64>,
    waited: Duration,
}

pin_project! {
    /// Waits for a connection of sqlx's pool, with a record of the wait if there is one.
    ///
    /// Written out and not put together from smaller ones, because an `async fn` keeps room for a
    /// future that it is given and for the same future while it is awaited, and a combinator moves
    /// it: sqlx's is thousands of bytes, and each of them is copied each time.
    struct Wait<F, M> {
        #[pin]
        acquire: F,
        // `None` once it is over.
        ask: Option<Ask>,
        then: M,
    }
}

/// Who asks, and what was seen of the asking.
struct Ask {
    watched: Watched,
    kind: HolderKind,
    site: Option<CallSite>,
    learned: Option<Learned>,
    polls: u32,
    /// Known from the first poll on that was not answered: before that, nothing has waited.
    since: Option<Moment>,
    waiting: Option<Waiting>,
}

impl<DB, F, M, T> Future for Wait<F, M>
where
    DB: Database,
    F: Future<Output = Result<sqlx::pool::PoolConnection<DB>, Error>>,
    M: FnMut(Granted<DB>, Watched) -> T,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(ask) = this.ask.as_mut() else {
            return Poll::Pending;
        };
        if ask.polls == 0
            && ask.watched.monitor.config().get_strict()
            && let Err(refused) = ask.watched.refuse_nested(ask.site)
        {
            *this.ask = None;
            return Poll::Ready(Err(refused));
        }
        let Poll::Ready(granted) = ask.poll(this.acquire, cx) else {
            return Poll::Pending;
        };
        match this.ask.take() {
            Some(ask) => {
                let granted = ask.over(granted);
                Poll::Ready(granted.map(|(granted, watched)| (this.then)(granted, watched)))
            }
            None => Poll::Pending,
        }
    }
}

impl Ask {
    fn poll<DB, F>(
        &mut self,
        mut acquire: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<sqlx::pool::PoolConnection<DB>, Error>>
    where
        DB: Database,
        F: Future<Output = Result<sqlx::pool::PoolConnection<DB>, Error>>,
    {
        let watched = &self.watched;
        let learned = &mut self.learned;
        let mut poll = |cx: &mut Context<'_>| match learned {
            Some(learned) => learned.during(|| acquire.as_mut().poll(cx)),
            None => acquire.as_mut().poll(cx),
        };
        if let Some(waiting) = &self.waiting {
            let mut cx = Context::from_waker(waiting.waker(cx.waker()));
            return poll(&mut cx);
        }
        let asking = watched.record().asks();
        let polled = poll(cx);
        if polled.is_ready() {
            return polled;
        }
        let since = *self.since.get_or_insert_with(Moment::now);
        self.polls = self.polls.saturating_add(1);
        // With sqlx's ping every acquire is pending once: a waiter is one that found nothing free, or
        // is still pending at its second poll.
        if self.polls == 1 && !asking.finds_nothing_free() {
            return polled;
        }
        drop(asking);
        let waiting = watched.register(self.kind, self.site, since);
        let waiting = self.waiting.insert(waiting);
        // Again, so that what it waits for wakes it through us.
        let mut cx = Context::from_waker(waiting.waker(cx.waker()));
        poll(&mut cx)
    }

    fn over<DB: Database>(
        self,
        granted: Result<sqlx::pool::PoolConnection<DB>, Error>,
    ) -> Result<(Granted<DB>, Watched), Error> {
        let Self {
            watched,
            kind,
            site,
            learned,
            since,
            mut waiting,
            ..
        } = self;
        if let Some(waiting) = &mut waiting {
            waiting.over = true;
        }
        let raw = granted.inspect_err(|error| {
            let register = || watched.register(kind, site, since.unwrap_or_else(Moment::now));
            watched.failed(waiting.unwrap_or_else(register), error);
        })?;
        let waited = since.map_or(Duration::ZERO, |since| Moment::now().since(since));
        watched.monitor.granted(watched.record(), kind, waited);
        let granted = Granted {
            raw,
            backend: learned.and_then(Learned::backend),
            waited,
        };
        Ok((granted, watched))
    }
}

impl Watched {
    fn register(&self, kind: HolderKind, site: Option<CallSite>, since: Moment) -> Waiting {
        self.monitor
            .wait(self.record(), kind, self.policy, site, since)
    }

    /// Who holds a connection of this pool, oldest first.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let mut holders = self.monitor.holders();
        holders.retain(|holder| holder.pool_id == self.record().id);
        holders
    }

    /// In strict mode: nobody may wait for a connection of this pool while holding one on which no
    /// statement runs.
    ///
    /// # Errors
    /// A [`StrictError`] with both lines.
    fn refuse_nested(&self, site: Option<CallSite>) -> Result<(), Error> {
        let owner = Owner::current(Scope::current().as_ref());
        let is_own = |holder: &Holder| {
            holder.owner == Some(owner)
                && holder.phase == Phase::Held
                && holder.waits_for_its_owner()
        };
        match self.holders().iter().find(|holder| is_own(holder)) {
            Some(holder) => Err(StrictError::NestedCheckout {
                held: holder.acquired_by.clone(),
                asked: site.map(Location::from),
            }
            .error()),
            None => Ok(()),
        }
    }

    /// Notes that the pool failed somebody. A closed pool did what it was told to.
    fn failed(&self, mut waiting: Waiting, error: &Error) {
        waiting.over = true;
        if matches!(error, Error::PoolClosed) {
            return;
        }
        let timed_out = matches!(error, Error::PoolTimedOut);
        let tallies = &self.record().tallies;
        match timed_out {
            true => tallies.timed_out(),
            false => tallies.could_not_connect(),
        }
        if timed_out && let Some(scope) = Scope::current() {
            scope.note_acquire_timeout();
        }
        // Still registered: it is one of those who waited when the pool failed.
        self.monitor
            .acquire_failed(self.record(), waiting.view(), timed_out, error);
    }

    fn grant<DB: Database>(
        self,
        granted: Granted<DB>,
        kind: HolderKind,
        site: Option<CallSite>,
    ) -> Conn<DB> {
        let Granted {
            raw,
            backend,
            waited,
        } = granted;
        let lease = self
            .monitor
            .lease(self.slots, kind, self.policy, site, waited);
        Conn::new(Checkout::new(raw, lease, backend, self.monitor))
    }
}

/// A connection taken through sqlx's [`Acquire`], which must deref to sqlx's own.
///
/// Its use is not seen: generic code works with the raw connection. It is settled on its way back
/// like any other.
#[derive(Debug)]
pub struct Acquired<DB: Database>(Conn<DB>);

impl<DB: Database> Deref for Acquired<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.0
    }
}

impl<DB: Database> DerefMut for Acquired<DB> {
    #[track_caller]
    fn deref_mut(&mut self) -> &mut DB::Connection {
        &mut self.0
    }
}

impl<'a, DB: Database> Acquire<'a> for &'_ Pool<DB> {
    type Database = DB;
    type Connection = Acquired<DB>;

    #[track_caller]
    fn acquire(self) -> BoxFuture<'a, Result<Acquired<DB>, Error>> {
        let site = CallSite::caller();
        Box::pin(self.checkout_as(HolderKind::Connection, Some(site), Acquired))
    }

    /// sqlx's own transaction, as the trait demands: it cannot carry a record, so it counts as
    /// `in_progress`. Its wait is seen like any other.
    #[track_caller]
    fn begin(self) -> BoxFuture<'a, Result<sqlx::Transaction<'a, DB>, Error>> {
        let site = CallSite::caller();
        let wait = Wait {
            acquire: self.raw.acquire(),
            ask: Some(self.ask(HolderKind::Transaction, Some(site))),
            then: |granted: Granted<DB>, _| granted.raw,
        };
        self.monitor().handed_out(self.record(), site);
        Box::pin(async move {
            let raw = wait.await?;
            // In a task: a cut of the caller's future leaves no half of a BEGIN behind, and a
            // transaction that nobody takes is rolled back by its drop.
            let raw = MaybePoolConnection::PoolConnection(raw);
            let begin = tokio::spawn(sqlx::Transaction::begin(raw, None));
            match begin.await {
                Ok(begun) => begun,
                Err(error) => Err(Error::Io(std::io::Error::other(error))),
            }
        })
    }
}

macro_rules! acquire_from_a_guard {
    ($guard:ty, $($generics:tt)*) => {
        impl<'t, $($generics)*> Acquire<'t> for &'t mut $guard {
            type Database = DB;
            type Connection = &'t mut DB::Connection;

            #[track_caller]
            fn acquire(self) -> BoxFuture<'t, Result<Self::Connection, Error>> {
                let raw: &'t mut DB::Connection = self.as_mut();
                Box::pin(std::future::ready(Ok(raw)))
            }

            #[track_caller]
            fn begin(self) -> BoxFuture<'t, Result<sqlx::Transaction<'t, DB>, Error>> {
                let conn: &'t mut Conn<DB> = self;
                if conn.is_doomed() {
                    return Box::pin(std::future::ready(Err(DoomedTransaction::error())));
                }
                let site = CallSite::caller();
                let cell = conn.cell().clone();
                // A cut of this begin is nobody's mistake; what runs in the transaction is not seen.
                cell.unsure();
                cell.doom(conn.conduct.level > 0);
                let raw = MaybePoolConnection::Connection(conn.raw_mut());
                Box::pin(async move {
                    let begun = sqlx::Transaction::begin(raw, None).await;
                    cell.lent(site);
                    if begun.is_ok() {
                        cell.doom(false);
                    }
                    begun
                })
            }
        }
    };
}

acquire_from_a_guard!(Conn<DB>, DB: Database);
acquire_from_a_guard!(PoolConnection<DB>, DB: Database);
acquire_from_a_guard!(Transaction<'_, DB>, DB: Database);
