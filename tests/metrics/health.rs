//! Whether the database answers, as a gauge, and how often it has not.

use leaktrace::{PgPool, PgPoolOptions};

use crate::ground::{Bench, LONG, silent};
use crate::support::Proxy;
use crate::support::db::postgres_database;

const HEALTHY: &str = "leaktrace_healthy";
const FAILURES: &str = "leaktrace_health_failures";

#[tokio::test]
async fn failures_in_a_row_are_counted_and_an_answer_ends_them() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::new(silent()).await;
    let (archive, _other) = bench.sqlite("archive", 2).await;
    let proxy = Proxy::start(&db.url);
    let orders: PgPool = PgPoolOptions::new()
        .name("orders")
        .monitor(&bench.monitor)
        .acquire_timeout(LONG)
        .connect(&proxy.url(&db.url))
        .await
        .expect("a pool");
    assert!(
        bench.page().await.find(HEALTHY, &[]).is_empty(),
        "not asked"
    );
    assert!(bench.metrics.health(&orders).await.ok);
    assert!(bench.metrics.health(&archive).await.ok);
    let page = bench.page().await;
    assert_eq!(
        (page.of("orders", HEALTHY), page.of("orders", FAILURES)),
        (1.0, 0.0)
    );

    proxy.refuse();
    proxy.cut();
    for failures in [1.0, 2.0, 3.0] {
        let health = bench.metrics.health(&orders).await;
        assert!(!health.ok, "{health}");
        assert!(bench.metrics.health(&archive).await.ok);
        let page = bench.page().await;
        assert_eq!(page.of("orders", HEALTHY), 0.0);
        assert_eq!(page.of("orders", FAILURES), failures);
        assert_eq!(page.of("archive", FAILURES), 0.0);
        assert_eq!(page.of("archive", HEALTHY), 1.0);
    }
    proxy.accept();
    crate::support::eventually("it answers", LONG, async || {
        bench.metrics.health(&orders).await.ok
    })
    .await;
    let page = bench.page().await;
    assert_eq!(
        (page.of("orders", HEALTHY), page.of("orders", FAILURES)),
        (1.0, 0.0)
    );
}

#[tokio::test]
async fn a_pool_that_is_gone_is_neither_healthy_nor_failing() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 1).await;
    let held = orders.acquire().await.expect("a connection");
    assert!(!bench.metrics.health(&orders).await.ok, "all are held");
    assert_eq!(bench.page().await.of("orders", FAILURES), 1.0);
    held.release().await;
    orders.close().await;
    drop(orders);
    crate::support::eventually("it is gone", LONG, async || {
        bench.monitor.pools().is_empty()
    })
    .await;
    let page = bench.page().await;
    assert_eq!(page.of("orders", FAILURES), 0.0);
    assert!(page.of("orders", HEALTHY).is_nan());
}
