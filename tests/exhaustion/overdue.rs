//! `overdue`: connections are held past their threshold.

use std::time::Duration;

use leaktrace::{CauseKind, Scope};
use sqlx::Sqlite;

use crate::at;
use crate::bench::{Bench, PATIENCE, assert_names, cause, millis, quick};
use crate::support::db::sqlite_database;

#[tokio::test]
async fn the_lines_that_hold_are_named_with_their_shares() {
    let bench = Bench::new(quick().threshold(millis(100)));
    let db = sqlite_database().await;
    // Long beyond 200 ms: also a watchdog that is late has both to say.
    let patience = Duration::from_secs(4);
    let pool = bench.open_pool::<Sqlite>(&db, 3, patience).await;
    let mut old = Vec::new();
    for _ in 0..2 {
        old.push(Scope::new("POST /pdf").run(pool.acquire()).await);
    }
    let leaked = Scope::new("main").run(pool.acquire()).await;
    let leaked = leaked.expect("free").leak();
    assert!(pool.acquire().await.is_err());
    for finding in [bench.waiting().await, bench.timed_out().await] {
        let overdue = cause(&finding, CauseKind::Overdue).unwrap_or_else(|| panic!("{finding}"));
        assert_eq!(overdue.share, 3);
        let line = at!("old.push(Scope");
        assert_names(&overdue.detail, &["held past the threshold", &line, "(2)"]);
        let line = at!("let leaked =");
        assert_names(&overdue.detail, &["given away with leak()", &line]);
        assert!(finding.headline.contains("overdue 3"), "{finding}");
        assert_eq!(finding.holders.len(), 3);
    }
    drop(leaked);
}

#[tokio::test]
async fn a_holder_that_is_young_is_not_overdue() {
    // A busy machine may let the acquire fail much later than it should.
    let bench = Bench::new(quick().threshold(PATIENCE));
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 1, millis(800)).await;
    let _young = Scope::new("POST /pdf").run(pool.acquire()).await;
    assert!(pool.acquire().await.is_err());
    let finding = bench.timed_out().await;
    let saturated = cause(&finding, CauseKind::Saturated).unwrap_or_else(|| panic!("{finding}"));
    let line = at!("let _young =");
    assert_names(
        &saturated.detail,
        &[
            "1 young holder on which no statement runs",
            &line,
            "not past the threshold yet",
        ],
    );
    assert!(!saturated.detail.contains("small"), "{finding}");
    bench.never_said(&[CauseKind::Overdue]);
}
