//! Many holders of one line are one group, in a report and in a finding; those of two lines are two.

use leaktrace::{Config, Finding, Kind, Monitor, PoolConnection, SqlitePool, SqlitePoolOptions};

use crate::ground::*;
use crate::support::{Db, ran_on};

const CROWD: u32 = 1000;

async fn pool(monitor: &Monitor) -> SqlitePool {
    ran_on(Db::Sqlite);
    // A thousand connections in memory: SQLite has one thread and some kilobytes for each.
    SqlitePoolOptions::new()
        .monitor(monitor)
        .name("crowd")
        .max_connections(CROWD + 1)
        .acquire_timeout(PATIENCE)
        .connect("sqlite::memory:")
        .await
        .expect("a pool in memory")
}

async fn take(pool: &SqlitePool, count: u32) -> Vec<PoolConnection<sqlx::Sqlite>> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(pool.acquire().await.expect("a connection"));
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_holders_of_one_line_are_one_group_and_one_finding() {
    let monitor = Monitor::new(silent());
    let findings = listen(&monitor);
    let pool = pool(&monitor).await;
    let taken = take(&pool, CROWD).await;
    assert_eq!(monitor.holders().len(), CROWD as usize);
    // Here, so that all are overdue at once, however long opening them took.
    aged(&pool, millis(20)).await;
    monitor.set_threshold(millis(10));
    let all = findings
        .wait_for("the finding", PATIENCE, |all| {
            of(all, Kind::HeldTooLong).pop()
        })
        .await;
    assert_eq!(all.count, u64::from(CROWD));
    assert!(all.headline.contains("1000 × held"), "{}", all.headline);

    let report = monitor.report();
    assert_eq!(report.groups.len(), 1);
    assert_eq!(report.groups[0].count, CROWD as usize);
    assert_eq!(report.groups[0].finding, Some(all.id));
    assert!(report.groups[0].holders.len() <= 10);
    let text = report.to_string();
    assert!(text.contains("  1000 × "), "{text}");
    assert!(text.lines().count() < 12, "{text}");

    drop(taken);
    let back = findings
        .wait_for("the end", PATIENCE, |all: &[Finding]| {
            of(all, Kind::ReturnedLate).pop()
        })
        .await;
    assert_eq!((back.id, back.count), (all.id, u64::from(CROWD)));
    assert_eq!(
        findings.len(),
        2,
        "one finding and its end: {:?}",
        findings.all()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_of_two_lines_are_two_groups() {
    let monitor = Monitor::new(Config::default());
    let pool = pool(&monitor).await;
    let _one = pool.acquire().await.expect("a connection");
    let _two = pool.acquire().await.expect("a connection");
    let report = monitor.report();
    assert_eq!(report.groups.len(), 2);
    assert!(report.groups[0].holders[0].acquired_at <= report.groups[1].holders[0].acquired_at);
}
