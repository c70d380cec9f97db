//! When an exhaustion is said, how often, and what it does to the detail.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use leaktrace::{Config, Detail, Kind, Monitor, Scope, Severity, SqlitePool};
use sqlx::Sqlite;
use tower_http::timeout::TimeoutLayer;
use tracing::Instrument;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::bench::{Bench, PATIENCE, assert_names, millis, quick};
use crate::support::db::sqlite_database;
use crate::support::{Events, eventually};

/// Held by somebody else than the test, who does not wait for another one.
async fn held(pool: &SqlitePool) -> leaktrace::PoolConnection<Sqlite> {
    let held = Scope::new("somebody").run(pool.acquire()).await;
    held.expect("free")
}

#[tokio::test]
async fn it_is_said_when_the_oldest_has_waited_for_long_and_once_until_it_is_over() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 1, PATIENCE);
    let held = held(&pool).await;
    let waiters: Vec<_> = (0..3).map(|_| tokio::spawn(pool.acquire())).collect();
    let waiting = bench.waiting().await;
    assert_eq!(waiting.kind.as_str(), "exhausted");
    assert_names(
        &waiting.headline,
        &["pool \"orders\" exhausted", "1/1 out, 3 waiting"],
    );
    assert_eq!(waiting.waiters.len(), 3);
    let oldest = waiting.waiters[0].waited_for;
    assert!(oldest > millis(200), "{oldest:?}");
    drop(held);
    for waiter in waiters {
        drop(waiter.await.expect("no panic").expect("in time"));
    }
    let over = bench.over().await;
    assert_eq!(over.id, waiting.id);
    assert_names(
        &over.headline,
        &["no longer exhausted", "0 acquires failed"],
    );
    assert_eq!(
        (bench.count(Severity::Warn), bench.count(Severity::Error)),
        (1, 0)
    );
}

/// So slow that it never answers in time whether it runs at all.
#[tokio::test]
async fn it_is_said_once_also_while_the_runtime_is_slow() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 1, PATIENCE * 3).await;
    let held = held(&pool).await;
    tokio::spawn(async {
        loop {
            std::thread::sleep(millis(120));
            tokio::task::yield_now().await;
        }
    });
    let waiter = tokio::spawn(pool.acquire());
    let waiting = bench.waiting().await;
    let age = waiting.waiters[0].waited_for;
    let later = async || bench.monitor.waiters()[0].waited_for > age + Duration::from_secs(4);
    eventually("it waits on", PATIENCE, later).await;
    let said = (bench.count(Severity::Warn), bench.count(Severity::Info));
    assert_eq!(said, (1, 0), "{:?}", bench.findings.all());
    drop(held);
    drop(waiter.await.expect("no panic").expect("in time"));
    assert_eq!(bench.over().await.id, waiting.id);
}

#[tokio::test]
async fn a_wait_that_is_shorter_is_not_worth_a_word() {
    let bench = Bench::new(Config::default());
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 1, PATIENCE);
    for _ in 0..10 {
        let held = pool.acquire().await.expect("in time");
        let waits = tokio::spawn(pool.acquire());
        bench.until_waiting(1).await;
        held.release().await;
        waits
            .await
            .expect("no panic")
            .expect("in time")
            .release()
            .await;
    }
    assert!(bench.findings.is_empty());
}

#[tokio::test]
async fn failures_are_said_once_an_episode_and_counted_at_its_end() {
    let bench = Bench::new(quick().wait(PATIENCE));
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 1, millis(100)).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let held = held(&pool).await;
        for _ in 0..4 {
            let error = pool.acquire().await.map(drop);
            assert!(matches!(error, Err(sqlx::Error::PoolTimedOut)), "{error:?}");
        }
        drop(held);
        let failed = bench.timed_out().await;
        let over = bench.over().await;
        assert_eq!(over.id, failed.id);
        assert_eq!(over.count, 4, "{over}");
        assert_eq!(
            (bench.count(Severity::Warn), bench.count(Severity::Error)),
            (0, 1)
        );
        ids.push(failed.id);
        bench.findings.take();
    }
    assert_ne!(ids[0], ids[1], "another exhaustion");
}

/// The name of the span in which each short event was said.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

impl<S> tracing_subscriber::Layer<S> for Spans
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let names = event.metadata().fields().iter().map(|field| field.name());
        if let (Some(span), true) = (
            context.event_span(event),
            names.into_iter().any(|name| name == "phase"),
        ) {
            self.0
                .lock()
                .expect("not poisoned")
                .push(span.name().to_owned());
        }
    }
}

#[tokio::test]
async fn the_task_that_failed_says_it_in_its_own_span() {
    let (events, spans) = (Events::new(), Spans::default());
    let subscriber = tracing_subscriber::registry()
        .with(events.clone())
        .with(spans.clone());
    let _subscriber = crate::support::events::hear(subscriber);
    let bench = Bench::quick();
    let db = sqlite_database().await;
    // Long beyond 200 ms: also a watchdog that is late says first that somebody waits.
    let patience = Duration::from_secs(5);
    let pool = bench.open_pool::<Sqlite>(&db, 1, patience).await;
    let _held = held(&pool).await;
    let request = async { pool.acquire().await.map(drop) };
    let error = request.instrument(tracing::info_span!("GET /orders")).await;
    assert!(matches!(error, Err(sqlx::Error::PoolTimedOut)));
    let said = spans.0.lock().expect("not poisoned").clone();
    assert!(said.contains(&"GET /orders".to_owned()), "{said:?}");
    let finding = bench.timed_out().await;
    let short = events
        .wait_for("the short event", PATIENCE, |events| {
            let mut short = events
                .iter()
                .filter(|event| !event.fields.contains_key("report"));
            short
                .find(|event| event.fields.get("phase").map(String::as_str) == Some("timed_out"))
                .cloned()
        })
        .await;
    assert_eq!(short.level, tracing::Level::ERROR);
    assert_eq!(short.fields["kind"], "exhausted");
    assert_eq!(short.fields["id"], finding.id.to_string());
    assert_eq!(short.fields["pool"], "orders");
    let phases = |events: &[crate::support::events::Captured]| -> Vec<String> {
        let long = events
            .iter()
            .filter(|event| event.fields.contains_key("report"));
        long.filter_map(|event| event.fields.get("phase").cloned())
            .collect()
    };
    let long = events
        .wait_for("both reports", PATIENCE, |events| {
            Some(phases(events)).filter(|phases| phases.len() >= 2)
        })
        .await;
    assert_eq!(long[..2], ["waiting", "timed_out"]);
}

#[tokio::test]
async fn a_request_that_gives_up_before_the_pool_does_is_noticed() {
    async fn handler(State(pool): State<SqlitePool>) -> StatusCode {
        match pool.acquire().await {
            Ok(_) => StatusCode::OK,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
    let bench = Bench::new(Config::default());
    let db = sqlite_database().await;
    let pool = bench.pool::<Sqlite>(&db, 1, Duration::from_secs(30));
    let held = held(&pool).await;
    let second = Duration::from_secs(1);
    let app = Router::new()
        .route("/orders", get(handler))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            second,
        ))
        .layer(bench.monitor.layer())
        .with_state(pool);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    let (asked, started) = (Instant::now(), SystemTime::now());
    let answer = reqwest::get(format!("http://{addr}/orders"))
        .await
        .expect("an answer");
    let answered_after = asked.elapsed();
    assert_eq!(answer.status(), 408);
    let finding = bench.waiting().await;
    // By its own account it was said within half a second of the client's patience, and 28 s before
    // the pool's. Where this machine let the client itself wait for longer, by as much later.
    let waited = finding.waiters[0].waited_for;
    let limit = answered_after.max(millis(1_500));
    assert!(
        waited >= millis(900) && waited <= limit,
        "{waited:?}, {limit:?}"
    );
    let said_after = finding.first_seen.duration_since(started);
    let said_after = said_after.expect("after it was asked");
    assert!(said_after <= limit + second * 5, "{said_after:?}");
    // Whether it was still there or had just left: it is the one that waited.
    assert_eq!(finding.waiters.len(), 1, "{finding}");
    let scope = finding.waiters[0]
        .scope
        .as_ref()
        .map(|scope| scope.route.as_str());
    assert_eq!(scope, Some("GET /orders"));
    drop(held);
    bench.over().await;
    assert_eq!(bench.count(Severity::Warn), 1);
}

async fn exhaust(pool: &SqlitePool) {
    let _held = held(pool).await;
    assert!(pool.acquire().await.is_err());
}

async fn until_detail(monitor: &Monitor, detail: Detail) {
    let what = format!("detail {detail}");
    eventually(&what, PATIENCE, async || monitor.detail() == detail).await;
}

#[tokio::test]
async fn the_detail_rises_for_a_while_and_falls_again_though_nothing_happens() {
    let bench = Bench::new(quick().escalate(Duration::from_secs(5)));
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 1, millis(300)).await;
    exhaust(&pool).await;
    assert_eq!(bench.monitor.detail(), Detail::Backtrace);
    let conn = pool.acquire().await.expect("free");
    assert!(
        bench.monitor.holders()[0].stack.is_some(),
        "it instruments itself"
    );
    conn.release().await;
    until_detail(&bench.monitor, Detail::Location).await;
}

#[tokio::test]
async fn the_detail_that_was_asked_for_is_not_changed() {
    for (detail, escalate) in [
        (Detail::Location, None),
        (Detail::Backtrace, Some(millis(300))),
    ] {
        let bench = Bench::new(quick().detail(detail).escalate(escalate));
        let db = sqlite_database().await;
        let pool = bench.open_pool::<Sqlite>(&db, 1, millis(300)).await;
        exhaust(&pool).await;
        assert_eq!(bench.monitor.detail(), detail);
        bench.over().await;
        assert_eq!(bench.monitor.detail(), detail);
    }
}

#[tokio::test]
async fn whoever_sets_the_detail_during_an_incident_gets_it() {
    let bench = Bench::new(quick());
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 1, millis(300)).await;
    exhaust(&pool).await;
    assert_eq!(bench.monitor.detail(), Detail::Backtrace);
    bench.monitor.set_detail(Detail::Location);
    assert_eq!(bench.monitor.detail(), Detail::Location);
}

#[tokio::test]
async fn a_closed_pool_fails_nobody() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    let pool = bench.open_pool::<Sqlite>(&db, 1, millis(300)).await;
    pool.close().await;
    assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolClosed)));
    let exhausted = |finding: &leaktrace::Finding| finding.kind == Kind::Exhausted;
    assert!(!bench.findings.all().iter().any(exhausted));
}
