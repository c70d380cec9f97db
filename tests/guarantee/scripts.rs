//! R2: a transaction that was opened by text.

use crate::stage::{ours, raw};

/// The three ways in which text leaves a transaction open: a BEGIN, an aborted one, a script that
/// fails in its middle.
macro_rules! leave_open {
    ($pool:expr, $way:expr) => {
        match $way {
            "begin" => {
                let mut conn = $pool.acquire().await.expect("a connection");
                sqlx::raw_sql("BEGIN")
                    .execute(&mut *conn)
                    .await
                    .expect("it begins");
            }
            "aborted" => {
                let mut conn = $pool.acquire().await.expect("a connection");
                sqlx::raw_sql("BEGIN")
                    .execute(&mut *conn)
                    .await
                    .expect("it begins");
                let failed = sqlx::raw_sql("SELECT nothing FROM nowhere")
                    .execute(&mut *conn)
                    .await;
                assert!(failed.is_err());
            }
            _ => {
                let script = "BEGIN; SELECT nothing FROM nowhere; COMMIT";
                let failed = sqlx::raw_sql(script).execute(&$pool).await;
                assert!(failed.is_err());
            }
        }
    };
}

const WAYS: [&str; 3] = ["begin", "aborted", "script"];

macro_rules! raw_hands_it_on {
    ($db:ty, $stage:ident) => {{
        let pool = raw::<$db>(&$stage, 1).await;
        for way in WAYS {
            leave_open!(pool, way);
            assert!(
                !next_borrower_is_clean!(pool, $stage),
                "sqlx has changed: {way}"
            );
            wipe!(pool);
        }
    }};
}

macro_rules! ours_heals_it {
    ($db:ty, $stage:ident) => {{
        let (pool, _) = ours::<$db>(&$stage, 1).await;
        for way in WAYS {
            leave_open!(pool, way);
            assert!(next_borrower_is_clean!(pool, $stage), "{way}");
        }
        assert_eq!(pool.size(), 1);
    }};
}

on_each! {
    a_transaction_by_text_passes_through_sqlx [Postgres, MySql, Sqlite] raw_hands_it_on;
    a_transaction_by_text_does_not_reach_the_next_borrower [Postgres, MySql, Sqlite, Any] ours_heals_it;
}
