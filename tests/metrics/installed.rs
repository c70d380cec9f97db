//! The recorder of the process. One test: there is one of it.

use leaktrace::Monitor;
use leaktrace::metrics::Metrics;

use crate::ground::{Page, millis, recorder, silent};
use crate::support::db::sqlite_database;
use crate::support::eventually;

#[tokio::test]
async fn an_exporter_that_is_installed_late_gets_everything_from_then_on() {
    let monitor = Monitor::new(silent());
    let metrics = Metrics::of(&monitor).expect("it is the first");
    let db = sqlite_database().await;
    let pool = leaktrace::SqlitePoolOptions::new()
        .name("orders")
        .monitor(&monitor)
        .connect(&db.url)
        .await
        .expect("a pool");
    drop(pool.acquire().await.expect("a connection"));
    drop(pool.begin().await.expect("a transaction"));
    let is_back = async || pool.status().returning == 0;
    eventually("all are over", crate::ground::LONG, is_back).await;

    let recorder = recorder();
    let exporter = recorder.handle();
    metrics::set_global_recorder(recorder).expect("it is the first");
    metrics.publish();
    pool.acquire().await.expect("a connection").release().await;
    let page = Page(exporter.render());
    assert_eq!(
        page.of("orders", "db_client_connection_wait_time_seconds_count"),
        1.0
    );
    assert_eq!(
        page.of("orders", "db_client_connection_use_time_seconds_count"),
        1.0
    );
    let dropped = [("cause", "dropped")];
    assert_eq!(
        page.value("leaktrace_rollbacks_total", &dropped),
        1.0,
        "read, so not missed"
    );

    // Without a scrape, when that is asked for.
    let publishing = tokio::spawn(metrics.publish_every(millis(10)));
    let _held = pool.acquire().await.expect("a connection");
    let used = [(crate::ground::STATE, "used")];
    eventually("it is published", crate::ground::LONG, async || {
        Page(exporter.render()).value("db_client_connection_count", &used) == 1.0
    })
    .await;
    publishing.abort();
}
