//! The texts that a person reads, with lines and times masked.

use futures::StreamExt;
use leaktrace::{Detail, Kind};

use crate::ground::*;
use crate::mask::masked;

#[tokio::test]
async fn a_report_shows_the_pool_the_groups_and_the_last_minute() {
    let w = sqlite(silent().detail(Detail::Location), 6).await;
    let done = w.pool.acquire().await.expect("a connection");
    // A hundredth of what six connections could have given since they are watched, and more.
    aged(&w.pool, millis(500)).await;
    done.release().await;
    let mut taken = Vec::new();
    for _ in 0..2 {
        taken.push(w.pool.acquire().await.expect("a connection"));
    }
    let mut tx = w
        .pool
        .labeled("import")
        .begin()
        .await
        .expect("a transaction");
    sqlx::query("UPDATE sqlite_master SET name = 'x' WHERE rowid = 7")
        .execute(&mut *tx)
        .await
        .expect_err("not a table to write to");
    let mut rows = sqlx::query("SELECT 1 UNION SELECT 2").fetch(&w.pool);
    let _row = rows.next().await;
    let _ = w.pool.as_sqlx().size();
    let expected = "\
leaktrace: pool \"orders\" 4/6 out · up TIME
  2 × held TIME, not used yet, first seen CLOCK
      acquired   tests/reports/text.rs:LINE   Connection
  1 × held TIME, idle for TIME, first seen CLOCK
      acquired   tests/reports/text.rs:LINE   Transaction   label \"import\"
      last used  tests/reports/text.rs:LINE   UPDATE sqlite_master SET name = ? WHERE rowid = ?
  1 × held TIME, rows not read, statement open for TIME, first seen CLOCK
      acquired   by a statement on the pool itself
      last used  SELECT ? UNION SELECT ?
  last minute, by connection time, overdue or not: text.rs:LINE 1 × TIME (TIME after last use)
  raw pool handed out at tests/reports/text.rs:LINE
";
    assert_eq!(masked(&w.monitor.report().to_string()), expected);
}

#[tokio::test]
async fn a_finding_shows_its_headline_its_holder_and_the_way_on() {
    let w = sqlite(silent().detail(Detail::Location), 2).await;
    let mut tx = w.pool.begin().await.expect("a transaction");
    sqlx::query(QUICK)
        .execute(&mut *tx)
        .await
        .expect("a statement");
    // So long that most of it was after the statement.
    aged(&w.pool, millis(500)).await;
    w.monitor.set_detail(Detail::Backtrace);
    w.monitor.set_threshold(millis(10));
    let found = w.finding(Kind::HeldTooLong).await;
    let expected = "\
held_too_long #1 pool \"orders\": held TIME, idle for TIME, acquired tests/reports/text.rs:LINE, last used tests/reports/text.rs:LINE
leaktrace: pool \"orders\" 1/2 out · up TIME
  1 × idle in transaction TIME, held TIME, first seen CLOCK   #1
      acquired   tests/reports/text.rs:LINE   Transaction
      last used  tests/reports/text.rs:LINE   SELECT ?
      likely     it does something after its last use at text.rs:LINE that is not this database, with the transaction open: commit before, or do it first
  next: docs/findings/held_too_long.md of leaktrace. A connection has been checked out for longer than its threshold. The line that took it is named; whoever waits for the pool waits for it.";
    assert_eq!(masked(&found.to_string()), expected);
}
