//! The hook below the metrics, as anybody may use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use leaktrace::{CheckoutObserver, Grant, HolderKind, Monitor, Release, Scope, SqlitePoolOptions};

use crate::ground::{LONG, silent};
use crate::support::db::sqlite_database;
use crate::support::{Capture, eventually};

/// Pool, kind, line, scope, label.
type Seen = (
    String,
    HolderKind,
    Option<String>,
    Option<String>,
    Option<&'static str>,
);

struct Notes(Capture<Seen>);

impl CheckoutObserver for Notes {
    fn granted(&self, grant: &Grant<'_>) {
        let pool = format!("granted {}", grant.pool());
        self.0.push((pool, grant.kind(), None, None, None));
    }

    fn released(&self, release: &Release<'_>) {
        self.0.push((
            release.pool().to_string(),
            release.kind(),
            release.acquired_by().map(|line| line.file()),
            release.scope().map(|scope| scope.route),
            release.label(),
        ));
    }
}

#[tokio::test]
async fn an_observer_hears_what_it_was_and_whom_it_served() {
    let monitor = Monitor::new(silent());
    let notes = Capture::new();
    monitor
        .observe(Notes(notes.clone()))
        .expect("it is the first");
    let db = sqlite_database().await;
    let pool = SqlitePoolOptions::new().name("orders").monitor(&monitor);
    let pool = pool.connect(&db.url).await.expect("a pool");
    let labeled = pool.labeled("export");
    let tx = Scope::new("a job").run(labeled.begin()).await;
    tx.expect("a transaction").commit().await.expect("an end");
    let seen = notes.wait_for("two", LONG, |all| (all.len() >= 2).then(|| all.to_vec()));
    let seen = seen.await;
    assert_eq!(
        seen,
        [
            (
                "granted orders".into(),
                HolderKind::Transaction,
                None,
                None,
                None
            ),
            (
                "orders".into(),
                HolderKind::Transaction,
                Some("tests/metrics/observers.rs".into()),
                Some("a job".into()),
                Some("export"),
            ),
        ]
    );
}

struct Panics(Arc<AtomicU32>);

impl CheckoutObserver for Panics {
    fn granted(&self, _: &Grant<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("an observer of the test panics");
    }

    fn released(&self, _: &Release<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("an observer of the test panics");
    }
}

#[tokio::test]
async fn an_observer_that_panics_breaks_neither_a_checkout_nor_its_end() {
    let monitor = Monitor::new(silent());
    let calls = Arc::new(AtomicU32::new(0));
    monitor
        .observe(Panics(Arc::clone(&calls)))
        .expect("it is the first");
    let db = sqlite_database().await;
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .monitor(&monitor);
    let pool = pool.connect(&db.url).await.expect("a pool");
    for _ in 0..3 {
        pool.acquire().await.expect("a connection").release().await;
    }
    drop(pool.acquire().await.expect("a connection"));
    eventually("it is back", LONG, async || {
        let status = pool.status();
        status.held + status.returning == 0 && status.idle == 1
    })
    .await;
    assert_eq!(calls.load(Ordering::Relaxed), 8);
    assert!(pool.holders().is_empty());
}
