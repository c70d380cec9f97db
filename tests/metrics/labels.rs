//! Labels that a service decides are not there unasked, and bounded when they are.

use std::collections::BTreeSet;

use leaktrace::Scope;
use leaktrace::metrics::Metrics;

use crate::ground::{Bench, LONG, Page, silent};
use crate::support::eventually;

const USE: &str = "db_client_connection_use_time_seconds_count";

fn values(page: &Page, label: &str) -> BTreeSet<String> {
    let samples = page.samples();
    let values = samples.iter().filter_map(|sample| sample.labels.get(label));
    values.cloned().collect()
}

/// Six jobs, each a checkout from this line.
async fn six_jobs(bench: &Bench) -> Page {
    let (orders, _db) = bench.sqlite("orders", 1).await;
    for job in ["a", "b", "c", "d", "e", "a"] {
        let conn = Scope::new(job).run(orders.acquire()).await;
        conn.expect("a connection").release().await;
    }
    // From another line, and from none.
    orders
        .acquire()
        .await
        .expect("a connection")
        .release()
        .await;
    let one = sqlx::query("SELECT 1").execute(&orders).await;
    one.expect("a statement");
    eventually("all are over", LONG, async || {
        let page = bench.page().await;
        if page.sum(USE) == 8.0 {
            Ok(page)
        } else {
            Err(page)
        }
    })
    .await
}

#[tokio::test]
async fn without_a_word_there_are_none_of_them() {
    let page = six_jobs(&Bench::new(silent()).await).await;
    assert!(values(&page, "route").is_empty() && values(&page, "site").is_empty());
    assert_eq!(page.find(USE, &[]).len(), 1);
}

#[tokio::test]
async fn the_first_routes_are_named_and_the_others_are_other() {
    let bench = Bench::with(silent(), Metrics::options().routes(2)).await;
    let page = six_jobs(&bench).await;
    assert_eq!(
        values(&page, "route"),
        ["a", "b", "other"].map(String::from).into()
    );
    assert_eq!(page.value(USE, &[("route", "a")]), 2.0);
    assert_eq!(page.value(USE, &[("route", "b")]), 1.0);
    assert_eq!(
        page.value(USE, &[("route", "other")]),
        5.0,
        "with those of none"
    );
    assert!(values(&page, "site").is_empty());
}

#[tokio::test]
async fn with_room_for_all_nothing_is_other() {
    let bench = Bench::with(silent(), Metrics::options().routes(100).sites(100)).await;
    let page = six_jobs(&bench).await;
    let routes = ["(none)", "a", "b", "c", "d", "e"].map(String::from);
    assert_eq!(values(&page, "route"), routes.into());
    let sites = values(&page, "site");
    assert_eq!(sites.len(), 3, "{sites:?}");
    assert!(sites.contains("(statement)"), "{sites:?}");
    let lines = sites
        .iter()
        .filter(|site| site.starts_with("tests/metrics/labels.rs:"));
    assert_eq!(lines.count(), 2, "{sites:?}");
}

#[tokio::test]
async fn sites_are_capped_too() {
    let bench = Bench::with(silent(), Metrics::options().sites(1)).await;
    let page = six_jobs(&bench).await;
    assert_eq!(values(&page, "site").len(), 2, "one, and other");
    assert_eq!(page.value(USE, &[("site", "other")]), 2.0);
}
