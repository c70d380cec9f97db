//! Responsible for one thing: whose types the user code of this suite gets. Every other file takes
//! its pool, its guards and its options from here, so that this file alone is the adoption.
//! `db_of_sqlx.rs` is the same with sqlx's own types.

use std::time::Duration;

pub(crate) use leaktrace::{AnyPool, MySqlPool, PgPool, Pool, SqlitePool};
pub(crate) use leaktrace::{AnyPoolOptions, MySqlPoolOptions, PgPoolOptions, SqlitePoolOptions};
pub(crate) use leaktrace::{PgTransaction, PoolConnection, PoolOptions, Transaction};

/// sqlx's own pool, for what takes nothing else (`PgListener`, `PgPoolCopyExt`).
pub(crate) fn as_sqlx<DB: sqlx::Database>(pool: &Pool<DB>) -> &sqlx::Pool<DB> {
    pool.as_sqlx()
}

/// Waits until everything that was checked out is back; panics when something never comes.
///
/// Both accounts must agree: ours, and what sqlx counts (which knows the raw pool's use, too).
pub(crate) async fn all_back<DB: sqlx::Database>(pool: &Pool<DB>) {
    let back = async {
        loop {
            let ours = pool.status();
            if ours.held == 0 && ours.returning == 0 && pool.num_idle() == pool.size() as usize {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), back)
        .await
        .is_err()
    {
        panic!("not back: {:?}, {:#?}", pool.status(), pool.holders());
    }
}

/// Lends the connection of a guard as an executor in code that is generic over the database.
macro_rules! lend {
    ($guard:expr) => {
        &mut **$guard
    };
}
pub(crate) use lend;
