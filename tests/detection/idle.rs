//! `idle_in_transaction` is said of a transaction that is known to be idle, and of no other.
//!
//! The usual shortcuts (time since the last use, or since `begin`) would fail here: a long statement,
//! and a helper whose statements are not seen.

use leaktrace::{Finding, Kind};
use sqlx::Connection;

use crate::ground::*;

/// How many seconds the headline says after these words.
#[track_caller]
fn seconds(found: &Finding, words: &str) -> f64 {
    let (_, rest) = found.headline.split_once(words).expect("these words");
    let number = rest.split(' ').next().unwrap_or_default();
    number.parse().expect("seconds")
}

on_each_database! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_transaction_that_sleeps_is_called_idle_with_its_last_line() {
        let Some(w) = watched::<DB>(loud(), 2).await else { return };
        let mut tx = w.pool.begin().await.expect("a transaction");
        // It passes its threshold a while before it has been idle for as long.
        tokio::time::sleep(millis(150)).await;
        let line = line!() + 1;
        sqlx::query(QUICK).execute(&mut *tx).await.expect("a statement");
        let found = w.finding(Kind::IdleInTransaction).await;
        let holder = &found.holders[0];
        assert_eq!(holder.last_used_by.as_ref().map(|place| place.line()), Some(line));
        assert!(holder.is_idle_in_transaction());
        // From its last use, and not from its begin.
        let (idle, held) = (seconds(&found, "idle in transaction "), seconds(&found, "held "));
        assert!(idle >= 1.0 && idle < held, "{}", found.headline);
        assert!(found.headline.contains(&format!("idle.rs:{line}:")), "{}", found.headline);
        tx.rollback().await.expect("a rollback");
        let back = w.finding(Kind::ReturnedLate).await;
        assert_eq!(back.id, found.id);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_long_statement_is_not_idle() {
        let Some(w) = watched::<DB>(loud(), 2).await else { return };
        let mut tx = w.pool.begin().await.expect("a transaction");
        sqlx::query(DB::FOUR_SECONDS).execute(&mut *tx).await.expect("a long statement");
        tx.commit().await.expect("a commit");
        let found = w.finding(Kind::HeldTooLong).await;
        assert!(found.headline.contains("statement running for"), "{}", found.headline);
        // What was reported has come back: everything that could be said has been said.
        w.finding(Kind::ReturnedLate).await;
        assert!(!w.kinds().contains(&Kind::IdleInTransaction), "{:?}", w.kinds());
    }

    /// Forty statements in four seconds, none of which anybody sees.
    async fn import(conn: &mut Raw) -> Result<(), sqlx::Error> {
        let mut every = tokio::time::interval(millis(100));
        for _ in 0..40 {
            every.tick().await;
            sqlx::query(QUICK).execute(&mut *conn).await?;
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_helper_at_work_on_a_raw_loan_is_not_idle() {
        let Some(w) = watched::<DB>(loud(), 2).await else { return };
        let mut tx = w.pool.begin().await.expect("a transaction");
        import(&mut tx).await.expect("statements");
        tx.commit().await.expect("a commit");
        let found = w.finding(Kind::HeldTooLong).await;
        assert!(found.headline.contains("lent as a raw connection"), "{}", found.headline);
        assert!(found.headline.contains("was not seen"), "{}", found.headline);
        w.finding(Kind::ReturnedLate).await;
        assert!(!w.kinds().contains(&Kind::IdleInTransaction), "{:?}", w.kinds());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_transaction_with_forty_statements_in_four_seconds_is_not_idle() {
        let Some(w) = watched::<DB>(loud(), 2).await else { return };
        let mut tx = w.pool.begin().await.expect("a transaction");
        let mut every = tokio::time::interval(millis(100));
        for _ in 0..40 {
            every.tick().await;
            sqlx::query(QUICK).execute(&mut *tx).await.expect("a statement");
        }
        tx.commit().await.expect("a commit");
        w.finding(Kind::HeldTooLong).await;
        w.finding(Kind::ReturnedLate).await;
        assert!(!w.kinds().contains(&Kind::IdleInTransaction), "{:?}", w.kinds());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_idle_connection_without_a_transaction_is_only_held() {
        let Some(w) = watched::<DB>(loud(), 2).await else { return };
        let mut conn = w.pool.acquire().await.expect("a connection");
        sqlx::query(QUICK).execute(&mut *conn).await.expect("a statement");
        w.finding(Kind::HeldTooLong).await;
        drop(conn);
        w.finding(Kind::ReturnedLate).await;
        assert!(!w.kinds().contains(&Kind::IdleInTransaction), "{:?}", w.kinds());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_begin_sent_as_text_is_a_transaction_too() {
        let Some(w) = watched::<DB>(loud(), 2).await else { return };
        let mut conn = w.pool.acquire().await.expect("a connection");
        sqlx::raw_sql("BEGIN").execute(&mut *conn).await.expect("a begin");
        w.finding(Kind::IdleInTransaction).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await.expect("a rollback");
        assert!(!w.pool.holders()[0].in_transaction);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_finding_can_be_switched_off() {
        let Some(w) = watched::<DB>(loud().idle_in_transaction(None), 2).await else { return };
        let mut tx = w.pool.begin().await.expect("a transaction");
        sqlx::query(QUICK).execute(&mut *tx).await.expect("a statement");
        w.finding(Kind::HeldTooLong).await;
        tx.rollback().await.expect("a rollback");
        w.finding(Kind::ReturnedLate).await;
        assert!(!w.kinds().contains(&Kind::IdleInTransaction), "{:?}", w.kinds());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlx_own_transaction_on_a_raw_loan_is_not_known_to_be_idle() {
    let w = sqlite(loud(), 2).await;
    let mut conn = w.pool.acquire().await.expect("a connection");
    let raw: &mut sqlx::SqliteConnection = &mut conn;
    let tx = raw.begin().await.expect("sqlx's transaction");
    w.finding(Kind::HeldTooLong).await;
    drop(tx);
    drop(conn);
    w.finding(Kind::ReturnedLate).await;
    assert!(!w.kinds().contains(&Kind::IdleInTransaction));
}
