//! A transaction for a test, which nothing in the test can commit.
//!
//! Responsible for [`rolled_back`]. Not responsible for the rollback itself: the way back of every
//! transaction does it.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};

use sqlx::{Database, Error};

use crate::pool::{Conn, Pool, Transaction};

/// Begins a transaction for one test: what is written in it is never there afterwards, whether the
/// test passes, fails, panics or is cut.
///
/// It is used like a [`Transaction`], and lent to code that takes one, a `&mut Conn` or sqlx's
/// connection. Code under test may begin and commit: those are savepoints of it. Tests that share a
/// database so do not see each other's rows.
///
/// What is beyond any rollback: the numbers of sequences and `AUTO_INCREMENT`; a `COMMIT` that is sent
/// as text; on MySQL and MariaDB a `CREATE`, `ALTER` or `DROP`, which commits. Code that takes a pool
/// cannot be given a transaction: it needs a database of its own, as `#[sqlx::test]` makes.
///
/// # Errors
/// As [`Pool::begin`].
///
/// # Cancel safety
/// As [`Pool::begin`].
///
/// # Examples
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sqlx::Error> {
/// # let options = leaktrace::SqlitePoolOptions::new().max_connections(1);
/// # let pool = options.connect("sqlite::memory:").await?;
/// # sqlx::raw_sql("CREATE TABLE orders (id INTEGER)").execute(&pool).await?;
/// {
///     let mut tx = leaktrace::testing::rolled_back(&pool).await?;
///     sqlx::query("INSERT INTO orders VALUES (1)").execute(&mut *tx).await?;
///     let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&mut *tx).await?;
///     assert_eq!(rows, 1);
/// }
/// let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&pool).await?;
/// assert_eq!(rows, 0);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
///
/// It has no `commit`:
/// ```compile_fail,E0507
/// # async fn save(pool: leaktrace::SqlitePool) -> Result<(), sqlx::Error> {
/// let tx = leaktrace::testing::rolled_back(&pool).await?;
/// tx.commit().await
/// # }
/// ```
#[track_caller]
pub fn rolled_back<DB: Database>(
    pool: &Pool<DB>,
) -> impl Future<Output = Result<RolledBack<DB>, Error>> + Send + 'static + use<DB> {
    let begin = pool.begin();
    async move {
        let mut tx = begin.await?;
        tx.will_be_discarded();
        Ok(RolledBack { tx })
    }
}

/// A transaction that only ends in a rollback: made by [`rolled_back`].
#[must_use = "it is rolled back when it is dropped: bind it to a name such as `tx`"]
pub struct RolledBack<DB: Database> {
    tx: Transaction<'static, DB>,
}

impl<DB: Database> RolledBack<DB> {
    /// Rolls back now, and answers when the server has done it. A drop does not wait for that.
    ///
    /// # Errors
    /// What the server answers. The way back rolls back in any case.
    pub async fn rollback(self) -> Result<(), Error> {
        self.tx.rollback().await
    }
}

impl<DB: Database> Deref for RolledBack<DB> {
    type Target = Transaction<'static, DB>;

    fn deref(&self) -> &Self::Target {
        &self.tx
    }
}

impl<DB: Database> DerefMut for RolledBack<DB> {
    /// Remembers the calling line: the statement that follows came from there.
    #[track_caller]
    fn deref_mut(&mut self) -> &mut Self::Target {
        let _: &mut Conn<DB> = &mut self.tx;
        &mut self.tx
    }
}

impl<DB: Database> fmt::Debug for RolledBack<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RolledBack").field(&self.tx).finish()
    }
}
