//! A thing is said once: milestones, the interval of a group, the limit by minute, the end.

use std::time::Duration;

use leaktrace::{Config, Finding, Kind, Monitor, SqlitePool, SqlitePoolOptions};
use tracing::Level;

use crate::ground::*;
use crate::support::{Db, Events, eventually, ran_on};

/// A tenth of what a watchdog may be late on a busy machine.
const THRESHOLD: Duration = millis(300);

fn quick() -> Config {
    silent().threshold(THRESHOLD).report_interval(millis(1))
}

#[tokio::test]
async fn a_holder_speaks_again_at_ten_times_its_threshold_under_the_same_number() {
    let w = sqlite(quick(), 2).await;
    let conn = w.pool.acquire().await.expect("a connection");
    let again = w
        .findings
        .wait_for("the second finding", PATIENCE, |all: &[Finding]| {
            all.get(1).cloned()
        })
        .await;
    let first = w.findings.all()[0].clone();
    assert_eq!((again.kind, again.id), (Kind::HeldTooLong, first.id));
    assert!(first.holders[0].held_for < THRESHOLD * 10, "{first}");
    assert!(again.holders[0].held_for > THRESHOLD * 10, "{again}");
    // Between ten and a hundred times: nothing more.
    let later = async || (w.pool.holders()[0].held_for > THRESHOLD * 20).then_some(());
    eventually("more time", PATIENCE, later).await;
    drop(conn);
    let back = w.finding(Kind::ReturnedLate).await;
    assert_eq!(back.id, first.id);
    assert!(back.holders[0].held_for > THRESHOLD * 20);
    assert_eq!(w.findings.len(), 3, "{:?}", w.findings.all());
}

#[tokio::test]
async fn within_the_interval_a_group_does_not_speak_again() {
    let w = sqlite(silent().threshold(millis(60)), 3).await;
    let mut taken = Vec::new();
    for _ in 0..2 {
        taken.push(w.pool.acquire().await.expect("a connection"));
        w.finding(Kind::HeldTooLong).await;
    }
    let old = async || {
        w.pool
            .holders()
            .iter()
            .all(|holder| holder.held_for > SECOND)
    };
    eventually("ten times the threshold", PATIENCE, old).await;
    taken.clear();
    w.finding(Kind::ReturnedLate).await;
    w.all_back().await;
    assert_eq!(
        w.findings.len(),
        2,
        "one finding and its end: {:?}",
        w.findings.all()
    );
}

#[tokio::test]
async fn a_finding_of_several_ends_once_with_the_last_of_them() {
    let w = sqlite(silent(), 4).await;
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(w.pool.acquire().await.expect("a connection"));
    }
    aged(&w.pool, millis(20)).await;
    w.monitor.set_threshold(millis(10));
    let found = w.finding(Kind::HeldTooLong).await;
    assert_eq!(found.count, 3);
    taken.truncate(1);
    let two_back = async || w.pool.status().held == 1 && w.pool.status().returning == 0;
    eventually("two of three back", PATIENCE, two_back).await;
    // A new finding, so that the watchdog has looked since.
    let other = w.pool.acquire().await.expect("a connection");
    w.findings
        .wait_for("another finding", PATIENCE, |all: &[Finding]| {
            all.iter().find(|other| other.id != found.id).cloned()
        })
        .await;
    assert!(!w.kinds().contains(&Kind::ReturnedLate));
    taken.clear();
    let back = w.finding(Kind::ReturnedLate).await;
    assert_eq!((back.id, back.count), (found.id, 3));
    drop(other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_turns_out_to_be_an_idle_transaction_is_upgraded_in_silence() {
    let limit = millis(300);
    let w = sqlite(silent().threshold(limit).idle_in_transaction(limit), 2).await;
    let mut tx = w.pool.begin().await.expect("a transaction");
    sqlx::query(<sqlx::Sqlite as Ground>::SLOW)
        .execute(&mut *tx)
        .await
        .expect("a slow statement");
    let found = w.finding(Kind::HeldTooLong).await;
    let upgraded = async || {
        let groups = w.monitor.report().groups;
        let group = groups.first()?;
        (group.kind == Some(Kind::IdleInTransaction)).then_some(group.finding)
    };
    let id = eventually("the upgrade", PATIENCE, upgraded).await;
    assert_eq!(id, Some(found.id));
    tx.rollback().await.expect("a rollback");
    let back = w.finding(Kind::ReturnedLate).await;
    assert_eq!(back.id, found.id);
    assert_eq!(w.findings.len(), 2, "{:?}", w.findings.all());
}

#[tokio::test]
async fn who_is_back_in_time_is_never_spoken_of() {
    let w = sqlite(silent(), 2).await;
    for _ in 0..50 {
        drop(w.pool.acquire().await.expect("a connection"));
    }
    w.all_back().await;
    w.monitor.set_threshold(millis(1));
    // Somebody else, so that the watchdog has looked since.
    let _other = w.pool.acquire().await.expect("a connection");
    let found = w.finding(Kind::HeldTooLong).await;
    assert_eq!(found.count, 1);
    assert_eq!(w.findings.len(), 1, "{:?}", w.findings.all());
}

async fn many(monitor: &Monitor) -> SqlitePool {
    ran_on(Db::Sqlite);
    SqlitePoolOptions::new()
        .monitor(monitor)
        .max_connections(60)
        .connect("sqlite::memory:")
        .await
        .expect("a pool in memory")
}

/// As many groups as labels, overdue at once; answers what is said of them in the log.
async fn groups_at_once(count: usize) -> (Events, usize) {
    let events = Events::new();
    let monitor = {
        let _here = events.here();
        Monitor::new(silent())
    };
    let findings = listen(&monitor);
    let pool = many(&monitor).await;
    let mut taken = Vec::new();
    for number in 0..count {
        let label: &'static str = Box::leak(format!("label {number}").into_boxed_str());
        taken.push(pool.labeled(label).acquire().await.expect("a connection"));
    }
    aged(&pool, millis(20)).await;
    monitor.set_threshold(millis(10));
    let expected = count.min(20);
    findings
        .wait_for("the findings", PATIENCE, |all: &[Finding]| {
            (all.len() >= expected).then_some(())
        })
        .await;
    if count > 20 {
        events
            .wait_for("the count", PATIENCE, |all| {
                all.iter()
                    .find(|event| event.message.contains("more groups"))
                    .cloned()
            })
            .await;
    }
    drop(taken);
    findings
        .wait_for("their ends", PATIENCE, |all: &[Finding]| {
            (of(all, Kind::ReturnedLate).len() >= expected).then_some(())
        })
        .await;
    let held = of(&findings.all(), Kind::HeldTooLong).len();
    (events, held)
}

#[tokio::test]
async fn more_than_twenty_reports_a_minute_become_a_count() {
    become_a_count().await;
}

/// So slow that every few looks it is not known yet whether it runs at all.
#[tokio::test]
async fn they_become_a_count_also_while_the_runtime_is_slow() {
    tokio::spawn(async {
        loop {
            std::thread::sleep(millis(100));
            tokio::task::yield_now().await;
        }
    });
    become_a_count().await;
}

async fn become_a_count() {
    let (events, held) = groups_at_once(27).await;
    assert_eq!(held, 20);
    let notes: Vec<_> = events
        .all()
        .into_iter()
        .filter(|event| event.message.contains("more groups"))
        .collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(notes[0].level, Level::WARN);
    assert!(
        notes[0]
            .message
            .starts_with("7 more groups of holders overdue"),
        "{notes:?}"
    );
}

#[tokio::test]
async fn twenty_reports_in_a_minute_are_all_said() {
    let (events, held) = groups_at_once(20).await;
    assert_eq!(held, 20);
    assert!(
        !events
            .all()
            .iter()
            .any(|event| event.message.contains("more group"))
    );
}
