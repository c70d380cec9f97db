//! What each detail records, and what speaks at it; changed while running, also for holders already
//! out.

use leaktrace::{Config, Detail, Kind, Monitor};

use crate::ground::*;

fn config(detail: Detail) -> Config {
    loud()
        .detail(detail)
        .threshold(millis(50))
        .idle_in_transaction(None)
}

#[tokio::test]
async fn at_off_nobody_is_recorded_and_everybody_is_counted() {
    let w = sqlite(config(Detail::Off), 2).await;
    let conn = w.pool.acquire().await.expect("a connection");
    assert!(w.pool.holders().is_empty());
    assert!(w.monitor.report().groups.is_empty());
    assert_eq!(w.pool.status().held, 1);
    // From the next checkout on; what is already out was not looked at.
    w.monitor.set_detail(Detail::Location);
    let other = w.pool.acquire().await.expect("a connection");
    assert_eq!(w.pool.holders().len(), 1);
    assert_eq!(w.pool.status().held, 2);
    drop((conn, other));
    w.all_back().await;
}

#[tokio::test]
async fn at_location_the_line_is_recorded_and_an_old_holder_is_no_news() {
    let w = sqlite(config(Detail::Location), 2).await;
    let conn = w.pool.acquire().await.expect("a connection");
    let line = line!() - 1;
    let holder = w.pool.holders().pop().expect("a holder");
    assert_eq!(holder.acquired_by.map(|place| place.line()), Some(line));
    assert!(holder.stack.is_none());
    // Twenty times its threshold, and the watchdog has looked as often.
    let old = async || (w.pool.holders()[0].held_for > SECOND).then_some(());
    crate::support::eventually("an old holder", PATIENCE, old).await;
    assert!(
        w.pool.holders()[0].overdue,
        "it is shown when somebody asks"
    );
    assert!(w.monitor.report().to_string().contains("overdue"));
    assert!(w.findings.is_empty(), "{:?}", w.findings.all());

    w.monitor.set_detail(Detail::Backtrace);
    let found = w.finding(Kind::HeldTooLong).await;
    assert_eq!(found.holders[0].id, holder.id, "it was out already");
    drop(conn);
    w.finding(Kind::ReturnedLate).await;
}

#[tokio::test]
async fn at_backtrace_the_stack_is_recorded_and_old_holders_are_reported() {
    let w = sqlite(config(Detail::Backtrace), 2).await;
    let _conn = w.pool.acquire().await.expect("a connection");
    let found = w.finding(Kind::HeldTooLong).await;
    let stack = found.holders[0].stack.clone().expect("a stack");
    let frames: Vec<&str> = stack
        .frames()
        .iter()
        .map(|frame| frame.function())
        .collect();
    assert!(
        frames
            .iter()
            .any(|name| name.contains("at_backtrace_the_stack_is_recorded"))
            || stack.frames().iter().any(|frame| frame
                .location()
                .is_some_and(|place| place.file() == "tests/detection/details.rs")),
        "{frames:?}"
    );
    assert!(
        !frames
            .iter()
            .any(|name| name.contains("sqlx") || name.contains("tokio")),
        "{frames:?}"
    );
    assert!(found.to_string().contains("called by"), "{found}");
}

#[tokio::test]
async fn the_kill_switch_silences_what_comes_after_it() {
    let w = sqlite(config(Detail::Backtrace), 2).await;
    let conn = w.pool.acquire().await.expect("a connection");
    w.finding(Kind::HeldTooLong).await;
    w.monitor.set_detail(Detail::Off);
    drop(conn);
    // What was opened is closed, also now.
    w.finding(Kind::ReturnedLate).await;
    let _conn = w.pool.acquire().await.expect("a connection");
    assert!(w.pool.holders().is_empty());
    assert_eq!(w.monitor.detail(), Detail::Off);
}

#[tokio::test]
async fn a_monitor_without_pools_says_so() {
    let monitor = Monitor::new(config(Detail::Backtrace));
    assert_eq!(
        monitor.report().to_string(),
        "leaktrace: no pool is watched\n"
    );
}
