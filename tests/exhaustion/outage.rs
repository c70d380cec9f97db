//! A database that is down: what is said of it, how often it is counted, and when it is over. On a real
//! server that is stopped or stands still.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leaktrace::{CauseKind, Config, Finding, PgPool, PoolCounts, Scope, Severity};
use sqlx::Error;

use crate::bench::{Bench, PATIENCE, assert_names, cause, millis};
use crate::support::db::{open_idle, postgres_database};
use crate::support::servers::Servers;
use crate::support::{Db, Events, Proxy, eventually, ran_on};

/// As a service has it, with four places.
const PLACES: u32 = 4;

/// A PostgreSQL of this test alone.
fn server() -> Option<Servers> {
    let others = ["MYSQL", "PGBOUNCER", "REPLICA"];
    let others = others.map(|name| format!("LEAKTRACE_TEST_{name}_URL"));
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let start = || Servers::start_without(Db::Postgres, &others);
    let servers = tokio::task::block_in_place(start)?;
    ran_on(Db::Postgres);
    Some(servers)
}

/// What `scripts/servers` does with it.
#[track_caller]
fn have(servers: &Servers, what: &str) {
    assert!(tokio::task::block_in_place(|| servers.run(what)), "{what}");
}

/// With so many connections open and idle, before it is watched: on a busy machine opening one may take
/// longer than a wait may.
async fn pool(bench: &Bench, servers: &Servers, acquire_timeout: Duration, open: usize) -> PgPool {
    let raw = sqlx::postgres::PgPoolOptions::new()
        .max_connections(PLACES)
        .acquire_timeout(acquire_timeout)
        .connect_lazy(&servers.url("LEAKTRACE_TEST_POSTGRES_URL"))
        .expect("a URL");
    open_idle(&raw, open).await;
    bench.monitor.watch("orders", raw)
}

async fn fails(pool: &PgPool) {
    let error = pool.acquire().await.map(drop);
    assert!(matches!(error, Err(Error::PoolTimedOut)), "{error:?}");
}

fn counts(bench: &Bench) -> PoolCounts {
    bench.monitor.pools()[0].counts
}

#[track_caller]
fn assert_connecting(finding: &Finding, words: &str) {
    let connecting = cause(finding, CauseKind::Connecting);
    let connecting = connecting.unwrap_or_else(|| panic!("{finding}"));
    assert_names(&connecting.detail, &[words]);
    assert_names(&finding.headline, &["connecting", words]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_counted_while_acquires_fail_and_over_when_the_server_is_back() {
    let Some(servers) = server() else {
        return;
    };
    let bench = Bench::new(Config::default());
    let pool = pool(&bench, &servers, millis(500), 2).await;
    let before = counts(&bench);
    have(&servers, "outage-begin");
    let began = Instant::now();
    // One after the other, as long as a few attempts of ours take at their pace.
    while began.elapsed() < Duration::from_secs(9) {
        fails(&pool).await;
    }
    let seen = counts(&bench);
    let errors = seen.connect_errors - before.connect_errors;
    let most = began.elapsed().as_secs() / 2 + 1;
    assert!(errors >= 3 && errors <= most, "{errors} of {seen:?}");
    assert_connecting(&bench.timed_out().await, "Connection refused");

    // Nobody asks, and it is down all the same.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.count(Severity::Info), 0, "{:?}", bench.findings.all());
    assert!(counts(&bench).connect_errors <= seen.connect_errors + 1);
    have(&servers, "outage-end");
    let over = bench.over().await;
    assert_names(&over.headline, &["pool \"orders\" is no longer exhausted"]);
    assert_eq!(
        over.count,
        seen.timeouts - before.timeouts,
        "all of them: {over}"
    );
    assert_eq!(bench.count(Severity::Error), 1, "it is one outage");
    bench.findings.take();

    // The innocent one: it is only full, and then has room again.
    let bench = Bench::new(Config::default());
    let pool = self::pool(&bench, &servers, Duration::from_secs(2), PLACES as usize).await;
    let mut held = Vec::new();
    while held.len() < PLACES as usize {
        let conn = Scope::new("somebody").run(pool.acquire()).await;
        held.push(conn.expect("it is open"));
    }
    tokio::join!(fails(&pool), fails(&pool));
    for conn in held {
        conn.release().await;
    }
    let over = bench.over().await;
    assert_names(&over.headline, &["is no longer exhausted", "2 acquires"]);
    bench.never_said(&[CauseKind::Connecting]);
    assert_eq!(counts(&bench).connect_errors, 0, "nothing was tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_of_before_the_outage_says_nothing_of_it() {
    let Some(servers) = server() else {
        return;
    };
    for _ in 0..8 {
        let bench = Bench::new(Config::default().wait(millis(300)));
        let pool = pool(&bench, &servers, millis(900), 1).await;
        have(&servers, "freeze");
        fails(&pool).await;
        have(&servers, "thaw");
        let finding = bench.timed_out().await;
        if cause(&finding, CauseKind::Connecting).is_some() {
            // This machine took so long that the attempt had no answer: once more.
            continue;
        }
        bench.over().await;
        bench.findings.take();
        have(&servers, "outage-begin");
        let before = counts(&bench);
        fails(&pool).await;
        assert_connecting(&bench.waiting().await, "Connection refused");
        let attempt = "an attempt of ours to connect came through";
        for finding in bench.findings.all() {
            assert!(!finding.to_string().contains(attempt), "{finding}");
        }
        assert!(counts(&bench).connect_errors > before.connect_errors);
        return;
    }
    panic!("no attempt had an answer in time");
}

/// The line that the task which failed has said.
async fn line(events: &Events) -> String {
    let is_it = |event: &&crate::support::events::Captured| {
        let phase = event.fields.get("phase").map(String::as_str);
        phase == Some("timed_out") && !event.fields.contains_key("report")
    };
    let find = |events: &[crate::support::events::Captured]| {
        events.iter().find(is_it).map(|event| event.message.clone())
    };
    events.wait_for("its line", PATIENCE, find).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_task_that_failed_says_what_is_known_of_the_outage() {
    let Some(servers) = server() else {
        return;
    };
    let events = Events::new();
    let _subscriber = events.here();
    let bench = Bench::new(Config::default());
    let pool = pool(&bench, &servers, Duration::from_secs(4), 1).await;
    have(&servers, "outage-begin");
    fails(&pool).await;
    assert_connecting(&bench.waiting().await, "Connection refused");
    assert_names(&line(&events).await, &["connecting", "Connection refused"]);
    assert_connecting(&bench.timed_out().await, "Connection refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_acquire_timeout_hides_no_outage() {
    let Some(servers) = server() else {
        return;
    };
    for (down, up, words) in [
        ("freeze", "thaw", "no answer within 1.0 s"),
        ("outage-begin", "outage-end", "Connection refused"),
    ] {
        // With idle connections that are dead, and with none.
        for open in [3, 0] {
            let events = Events::new();
            let _subscriber = events.here();
            let bench = Bench::new(Config::default());
            let pool = pool(&bench, &servers, Duration::from_secs(1), open).await;
            have(&servers, down);
            fails(&pool).await;
            let line = line(&events).await;
            for claim in ["places are free", "nothing that leaktrace sees"] {
                assert!(!line.contains(claim), "{line}");
            }
            assert_names(&line, &["connect"]);
            assert_connecting(&bench.timed_out().await, words);
            have(&servers, up);
            // Nobody asks: it is an attempt of ours that notices.
            let over = bench.over().await;
            assert_names(&over.headline, &["is no longer exhausted", "1 acquire"]);
            assert!(!over.headline.contains("µs"), "{over}");
        }
    }
}

#[tokio::test]
async fn a_failure_of_before_a_recovery_is_not_said_of_a_pool_that_is_full() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let proxy = Proxy::start(&db.url);
    proxy.refuse();
    let pool: PgPool = bench.pool_at(&proxy.url(&db.url), 1, PATIENCE);
    let waits = tokio::spawn(pool.acquire());
    assert_connecting(&bench.waiting().await, "Connection refused");
    proxy.accept();
    let held = waits.await.expect("no panic").expect("it is back");
    bench.over().await;
    bench.findings.take();
    let before = counts(&bench);
    assert!(before.connect_errors > 0);

    let waits = tokio::spawn(Scope::new("another").run(pool.acquire()));
    let full = bench.waiting().await;
    assert_eq!(full.causes.len(), 1, "{full}");
    bench.never_said(&[CauseKind::Connecting]);
    drop(held);
    waits.await.expect("no panic").expect("there is room");
    let over = bench.over().await;
    assert_eq!(over.id, full.id);
    assert_names(&over.headline, &["is no longer exhausted"]);
    assert_eq!(counts(&bench).connect_errors, before.connect_errors);
}

#[tokio::test]
async fn when_nobody_asks_any_more_the_end_does_not_claim_that_it_is_back() {
    let Some(db) = postgres_database().await else {
        return;
    };
    // Ten seconds is the shortest patience there is.
    let bench = Bench::quick();
    let proxy = Proxy::start(&db.url);
    proxy.refuse();
    let pool: PgPool = bench.pool_at(&proxy.url(&db.url), PLACES, millis(300));
    fails(&pool).await;
    let failed = bench.timed_out().await;
    let heard = AtomicU64::new(0);
    let over = eventually("it is over", PATIENCE * 2, async || {
        heard.store(counts(&bench).connect_errors, Ordering::Relaxed);
        let findings = bench.findings.all();
        let mut over = findings.into_iter();
        over.find(|finding| finding.severity == Severity::Info)
    })
    .await;
    assert_eq!(over.id, failed.id);
    assert_names(
        &over.headline,
        &[
            "nobody has asked pool \"orders\" for a connection for 1",
            "none could be opened",
            "1 acquire failed",
        ],
    );
    assert!(!over.headline.contains("no longer"), "{over}");
    // What is tried for the sake of its end is nobody's error.
    assert!(heard.into_inner() <= 2);
}
