//! Responsible for whose types the user code of this suite gets, on the side of sqlx: its own. The
//! binary `adoption_on_sqlx` runs with this file in place of `db.rs`.

pub(crate) use sqlx::any::AnyPoolOptions;
pub(crate) use sqlx::mysql::MySqlPoolOptions;
pub(crate) use sqlx::pool::{PoolConnection, PoolOptions};
pub(crate) use sqlx::postgres::PgPoolOptions;
pub(crate) use sqlx::sqlite::SqlitePoolOptions;
pub(crate) use sqlx::{AnyPool, MySqlPool, PgPool, PgTransaction, Pool, SqlitePool, Transaction};

/// sqlx's own pool, for what takes nothing else (`PgListener`, `PgPoolCopyExt`).
pub(crate) fn as_sqlx<DB: sqlx::Database>(pool: &Pool<DB>) -> &sqlx::Pool<DB> {
    pool
}

/// Waits until everything that was checked out is back; panics when something never comes.
pub(crate) async fn all_back<DB: sqlx::Database>(pool: &Pool<DB>) {
    let back = async {
        while pool.num_idle() != pool.size() as usize {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(5);
    tokio::time::timeout(limit, back)
        .await
        .expect("every connection comes back");
}

/// Lends the bare connection of a guard in code that is generic over the database.
macro_rules! lend {
    ($guard:expr) => {
        &mut *$guard
    };
}
pub(crate) use lend;
