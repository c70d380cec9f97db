//! Names from outside (pools, labels, scopes, routes, request ids) break no line and hide nothing.

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::routing::get;
use axum::{Router, response::IntoResponse};
use leaktrace::{Kind, Monitor, Scope, SqlitePool, SqlitePoolOptions};
use proptest::prelude::*;
use tower::ServiceExt;

use crate::ground::*;
use crate::outlets::{assert_harmless, everything};
use crate::support::{Db, Events, database};

async fn watched_as(name: &str) -> (Watched<sqlx::Sqlite>, Events) {
    let test = crate::support::db::sqlite_memory();
    let events = Events::new();
    let monitor = {
        let _here = events.here();
        Monitor::new(silent())
    };
    let findings = listen(&monitor);
    let pool = SqlitePoolOptions::new()
        .monitor(&monitor)
        .name(name)
        .max_connections(2)
        .connect(&test.url)
        .await
        .expect("a pool");
    (
        Watched {
            pool,
            monitor,
            findings,
            test,
        },
        events,
    )
}

/// Has a holder with these names reported, and looks at every output.
async fn report_of(pool: &str, label: &str, job: &str) {
    let (w, events) = watched_as(pool).await;
    let label: &'static str = Box::leak(label.to_string().into_boxed_str());
    let conn = Scope::new(job)
        .run(async { w.pool.labeled(label).acquire().await })
        .await
        .expect("a connection");
    aged(&w.pool, millis(2)).await;
    w.monitor.set_threshold(millis(1));
    w.finding(Kind::HeldTooLong).await;
    events
        .wait_for("an event", PATIENCE, |all| (!all.is_empty()).then_some(()))
        .await;
    let leaks = w.pool.find_leaks(millis(1)).await.expect_err("one is out");
    assert_harmless(&everything(&w, &leaks, &events));
    drop(conn);
    w.finding(Kind::ReturnedLate).await;
    assert_harmless(&everything(&w, &leaks, &events));
}

#[tokio::test]
async fn control_and_bidi_characters_are_escaped_everywhere() {
    let hostile =
        "a\nb\r\u{1b}[31mred\u{202e}left\u{2066}\u{200b}\u{7f}\u{85}\u{feff}\u{e0041}\tend";
    report_of(hostile, hostile, hostile).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_name_brings_a_hidden_character_through(
        pool in any::<String>(),
        label in "[\\x00-\\x20\\x7f\\u{85}\\u{202a}-\\u{202e}a-z\"\\\\]{0,20}",
        job in any::<String>(),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(report_of(&pool, &label, &job));
    }
}

async fn take(State(pool): State<SqlitePool>) -> impl IntoResponse {
    let conn = pool.acquire().await.expect("a connection");
    // Kept for ever, so that it can be looked at after the answer.
    std::mem::forget(conn);
    "taken"
}

#[tokio::test]
async fn neither_a_raw_path_nor_a_hostile_request_id_is_shown() {
    let test = database(Db::Sqlite).await.expect("SQLite");
    let events = Events::new();
    let monitor = {
        let _here = events.here();
        Monitor::new(silent())
    };
    let findings = listen(&monitor);
    let pool = SqlitePoolOptions::new()
        .monitor(&monitor)
        .name("orders")
        .connect(&test.url)
        .await
        .expect("a pool");
    let app = Router::new()
        .route("/users/{id}", get(take))
        .fallback(take)
        .layer(monitor.layer())
        .with_state(pool.clone());
    let w = Watched {
        pool,
        monitor,
        findings,
        test,
    };
    for path in ["/users/QZCANARYZQ?token=QZCANARYZQ", "/nowhere/QZCANARYZQ"] {
        let request = Request::get(path)
            .header("x-request-id", "QZCANARYZQ with spaces")
            .body(Body::empty())
            .expect("a request");
        let answer = app.clone().oneshot(request).await.expect("an answer");
        axum::body::to_bytes(answer.into_body(), 100)
            .await
            .expect("its body");
    }
    aged(&w.pool, millis(20)).await;
    w.monitor.set_threshold(millis(10));
    w.finding(Kind::HeldTooLong).await;
    events
        .wait_for("an event", PATIENCE, |all| (!all.is_empty()).then_some(()))
        .await;
    let leaks = w.pool.find_leaks(millis(1)).await.expect_err("two are out");
    let outs = everything(&w, &leaks, &events);
    for out in &outs {
        assert!(
            !out.text.contains("QZCANARYZQ"),
            "{}: {}",
            out.from,
            out.text
        );
    }
    assert_harmless(&outs);
    let report = w.monitor.report().to_string();
    let serving = "GET (unmatched) (1), GET /users/{id} (1)   2 requests, e.g. #";
    assert!(report.contains(serving), "{report}");
}
