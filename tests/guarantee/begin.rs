//! R1: a `begin` that is cut in flight.

use sqlx::Acquire;

use crate::stage::{ours, raw};

macro_rules! raw_leaves_it_open {
    ($db:ty, $stage:ident) => {{
        let pool = raw::<$db>(&$stage, 1).await;
        let (cuts, dirty) = cut_everywhere!(pool, $stage, pool.begin());
        assert!(
            cuts > 1 && dirty > 0,
            "sqlx has changed: {cuts} cuts, {dirty} dirty"
        );
    }};
}

macro_rules! ours_is_clean {
    ($name:ident, |$pool:ident| $future:expr) => {
        macro_rules! $name {
            ($db:ty, $stage:ident) => {{
                let ($pool, findings) = ours::<$db>(&$stage, 1).await;
                let (cuts, dirty) = cut_everywhere!($pool, $stage, $future);
                assert!(cuts > 0, "nothing was cut");
                assert_eq!(dirty, 0, "of {cuts} cuts");
                leaktrace::assert_no_leaks!($pool);
                let said: Vec<_> = findings.all().iter().map(|finding| finding.kind).collect();
                assert_eq!(said, [], "a caller that went away is no finding");
            }};
        }
    };
}

ours_is_clean!(begin, |pool| pool.begin());
ours_is_clean!(begin_with, |pool| pool.begin_with("BEGIN"));
ours_is_clean!(try_begin, |pool| pool.try_begin());
ours_is_clean!(try_begin_with, |pool| pool.try_begin_with("BEGIN"));
ours_is_clean!(acquire_then_begin, |pool| async {
    let mut conn = pool.acquire().await.expect("a connection");
    conn.begin().await.map(drop)
});
ours_is_clean!(acquire_trait, |pool| async {
    Acquire::begin(&pool).await.map(drop)
});
ours_is_clean!(acquire_trait_of_a_guard, |pool| async {
    let mut conn = pool.acquire().await.expect("a connection");
    Acquire::begin(&mut conn).await.map(drop)
});
ours_is_clean!(closure, |pool| pool.transaction(async |tx| {
    sqlx::query("INSERT INTO t VALUES (2)")
        .execute(&mut **tx)
        .await?;
    Err::<(), _>(sqlx::Error::RowNotFound)
}));
ours_is_clean!(nested, |pool| async {
    let mut tx = pool.begin().await.expect("a transaction");
    let nested = tx.begin().await.map(drop);
    drop(tx);
    nested
});

on_each! {
    a_cut_begin_of_sqlx_leaves_a_transaction_open [Postgres, MySql] raw_leaves_it_open;
    a_cut_begin_leaves_nothing [Postgres, MySql, Sqlite, Any] begin;
    a_cut_begin_with_leaves_nothing [Postgres, MySql, Sqlite, Any] begin_with;
    a_cut_try_begin_leaves_nothing [Postgres, MySql, Sqlite, Any] try_begin;
    a_cut_try_begin_with_leaves_nothing [Postgres, MySql, Sqlite, Any] try_begin_with;
    a_cut_begin_on_a_connection_leaves_nothing [Postgres, MySql, Sqlite, Any] acquire_then_begin;
    a_cut_begin_of_acquire_leaves_nothing [Postgres, MySql, Sqlite, Any] acquire_trait;
    a_cut_begin_of_a_lent_connection_leaves_nothing [Postgres, MySql, Sqlite, Any] acquire_trait_of_a_guard;
    a_cut_closure_leaves_nothing [Postgres, MySql, Sqlite, Any] closure;
    a_cut_nested_begin_leaves_nothing [Postgres, MySql, Sqlite, Any] nested;
}
