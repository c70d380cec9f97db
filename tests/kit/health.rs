//! Health asks without waiting and without standing in line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::get;
use http_body_util::BodyExt;
use leaktrace::kit::{PoolSettings, liveness, readiness};
use leaktrace::{MySqlPool, PgPool, SqlitePool};
use serde_json::Value;
use tower::ServiceExt;

use crate::settle::open;
use crate::support::db::{mysql_database, postgres_database, sqlite_database};
use crate::support::observer::PgObserver;
use crate::support::{Proxy, eventually};

const LONG: Duration = Duration::from_secs(60);

fn settings(url: &str) -> PoolSettings {
    PoolSettings::default()
        .service("orders")
        .max_connections(2)
        .acquire_timeout(LONG)
        .url(url)
        .expect("a URL")
}

#[tokio::test]
async fn a_database_that_answers_is_ok_on_each_server() {
    if let Some(test) = postgres_database().await {
        let pool: PgPool = open(&settings(&test.url)).await.expect("a pool");
        let health = pool.health().await;
        assert!(health.ok && health.error.is_none(), "{health}");
        leaktrace::assert_no_leaks!(pool);
    }
    if let Some(test) = mysql_database().await {
        let pool: MySqlPool = open(&settings(&test.url)).await.expect("a pool");
        assert!(pool.health().await.ok);
        assert!(pool.health().await.ok);
    }
    let test = sqlite_database().await;
    let pool: SqlitePool = open(&settings(&test.url)).await.expect("a pool");
    assert!(pool.health().await.ok);
}

#[tokio::test]
async fn with_all_held_it_answers_at_once_and_names_the_holders() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let pool: PgPool = open(&settings(&test.url)).await.expect("a pool");
    let _one = pool.acquire().await.expect("a connection");
    let _two = pool.begin().await.expect("a transaction");
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire().await.map(drop) }
    });
    eventually("somebody waits", LONG, async || pool.status().waiting == 1).await;

    // The best of many: the machine may be busy, the answer may not depend on the pool.
    let mut best = LONG;
    for _ in 0..20 {
        let start = Instant::now();
        let health = pool.health().await;
        best = best.min(start.elapsed());
        let error = health.error.expect("all are held");
        assert!(
            !health.ok && error.contains("2 of 2 are held, 1 wait"),
            "{error}"
        );
        assert!(error.contains("tests/kit/health.rs:"), "{error}");
        assert_eq!((health.status.checked_out, health.status.waiting), (2, 1));
    }
    assert!(best < Duration::from_millis(50), "{best:?}");
    waiter.abort();
}

/// As many clients as wait in turn: each holds a connection for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_whose_connections_come_back_is_busy_and_one_that_is_stuck_is_not_ok() {
    let test = sqlite_database().await;
    let pool: SqlitePool = open(&settings(&test.url)).await.expect("a pool");
    let stop = Arc::new(AtomicBool::new(false));
    let client = || {
        let (pool, stop) = (pool.clone(), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let _conn = pool.acquire().await.expect("a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let clients: Vec<_> = (0..8).map(|_| tokio::spawn(client())).collect();
    eventually("somebody was served", LONG, async || {
        pool.served_ago().is_some()
    })
    .await;
    let mut seen_busy = false;
    let start = Instant::now();
    while !seen_busy && start.elapsed() < LONG {
        let health = pool.health().await;
        assert!(health.ok && health.error.is_none(), "{health}");
        seen_busy = health.busy;
    }
    assert!(seen_busy, "it was full most of the time");
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no panic");
    }

    let _held = (pool.acquire().await, pool.acquire().await);
    let stuck = eventually("a second without anybody served", LONG, async || {
        let health = pool.health().await;
        (!health.ok).then_some(health)
    })
    .await;
    assert!(!stuck.busy, "{stuck}");
    assert!(
        stuck
            .error
            .as_ref()
            .is_some_and(|held| held.contains("2 of 2 are held")),
        "{stuck}"
    );
}

#[tokio::test]
async fn with_room_left_it_asks_beside_the_pool_and_leaves_nothing_there() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let pool: PgPool = open(&settings(&test.url)).await.expect("a pool");
    let _one = pool.acquire().await.expect("a connection");
    let health = pool.health().await;
    assert!(health.ok, "{health}");
    assert_eq!(pool.size(), 1);
    eventually("its session is gone", LONG, async || {
        observer.backends_of("orders").await.len() == 1
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_gone_is_not_ok_and_one_that_came_back_is() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let proxy = Proxy::start(&test.url);
    let pool: PgPool = open(&settings(&proxy.url(&test.url)))
        .await
        .expect("a pool");
    pool.acquire().await.expect("a connection").release().await;
    assert!(pool.health().await.ok);

    proxy.refuse();
    proxy.cut();
    let health = pool.health().await;
    assert!(!health.ok && health.error.is_some(), "{health}");

    proxy.accept();
    eventually("it answers again", LONG, async || {
        let health = pool.health().await;
        health.ok.then_some(()).ok_or(health)
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_that_was_cut_is_no_outage() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let pool: PgPool = open(&settings(&test.url)).await.expect("a pool");
    pool.acquire().await.expect("a connection").release().await;
    for backend in observer.backends_of("orders").await {
        observer.terminate(backend.pid).await;
    }
    let health = pool.health_within(Duration::from_secs(20)).await;
    assert!(health.ok, "{health}");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_told_within_the_limit() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let proxy = Proxy::start(&test.url);
    let pool: PgPool = open(&settings(&proxy.url(&test.url)))
        .await
        .expect("a pool");
    pool.acquire().await.expect("a connection").release().await;
    proxy.stall();
    let asked = pool.health_within(Duration::from_millis(300));
    let health = tokio::time::timeout(LONG, asked)
        .await
        .expect("its own limit");
    let error = health.error.expect("silence");
    assert!(!health.ok && error.contains("300ms"), "{error}");
    assert!(health.latency >= Duration::from_millis(300));
}

async fn get_from(app: &Router, path: &str) -> (u16, Value) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let response = app.clone().oneshot(request).await.expect("an answer");
    let code = response.status().as_u16();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (code, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn probes_answer_200_and_503_and_liveness_knows_no_database() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let proxy = Proxy::start(&test.url);
    let pool: PgPool = open(&settings(&proxy.url(&test.url)))
        .await
        .expect("a pool");
    let app = Router::new()
        .route("/live", get(liveness))
        .route("/ready", get(readiness::<sqlx::Postgres>))
        .with_state(pool.clone());
    let (code, body) = get_from(&app, "/ready").await;
    assert_eq!(
        (code, &body["ok"], &body["status"]["size"]),
        (200, &true.into(), &2.into())
    );
    assert!(body["latency_ms"].is_number());
    proxy.refuse();
    proxy.cut();
    let (code, body) = get_from(&app, "/ready").await;
    assert_eq!((code, &body["ok"]), (503, &false.into()));
    assert!(body["error"].is_string());
    assert_eq!(get_from(&app, "/live").await.0, 200);
}

#[tokio::test]
async fn the_words_of_sqlalchemy_count_what_the_server_counts() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut observer = PgObserver::watch(&test).await;
    let pool: PgPool = open(&settings(&test.url).max_overflow(2))
        .await
        .expect("a pool");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.acquire().await.expect("a connection"));
    }
    let words = pool.words();
    assert_eq!(
        (
            words.size,
            words.checked_in,
            words.checked_out,
            words.overflow
        ),
        (2, 0, 3, 1)
    );
    assert!(words.to_string().contains("Current Overflow: 1"), "{words}");
    eventually("as many sessions", LONG, async || {
        observer.backends_of("orders").await.len() == 3
    })
    .await;
    for conn in held {
        conn.release().await;
    }
    let words = pool.words();
    assert_eq!(
        (words.checked_in, words.checked_out, words.overflow),
        (2, 0, 0)
    );
}
