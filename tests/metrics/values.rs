//! Gauges and counters say what is true, of the pool that it is true of.

use axum::Router;
use axum::routing::get;
use leaktrace::{Kind, PgPool, PgPoolOptions, Scope, SqlitePool};

use crate::ground::{Bench, LONG, Page, STATE, checkout, millis, serve, silent};
use crate::support::db::postgres_database;
use crate::support::{Proxy, eventually};

fn count(page: &Page, pool: &str, state: &str) -> f64 {
    let labels = [(crate::ground::POOL, pool), (STATE, state)];
    page.value("db_client_connection_count", &labels)
}

#[tokio::test]
async fn three_of_ten_are_used_and_the_other_pool_is_idle() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 10).await;
    let (_archive, _other) = bench.sqlite("archive", 4).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(orders.acquire().await.expect("a connection"));
    }
    let page = bench.page().await;
    assert_eq!(count(&page, "orders", "used"), 3.0);
    assert_eq!(count(&page, "orders", "idle"), 0.0);
    assert_eq!(page.of("orders", "db_client_connection_max"), 10.0);
    assert_eq!(page.of("orders", "leaktrace_utilization_ratio"), 0.3);
    assert_eq!(count(&page, "archive", "used"), 0.0);
    assert_eq!(page.of("archive", "db_client_connection_max"), 4.0);
    assert_eq!(page.of("archive", "leaktrace_utilization_ratio"), 0.0);
    for conn in held {
        conn.release().await;
    }
    let page = bench.page().await;
    assert_eq!(count(&page, "orders", "used"), 0.0);
    assert_eq!(count(&page, "orders", "idle"), 3.0);
    assert_eq!(page.of("orders", "leaktrace_utilization_ratio"), 0.0);
}

#[tokio::test]
async fn who_waits_is_pending_and_who_gave_up_is_a_timeout() {
    let bench = Bench::new(silent()).await;
    let (archive, _other) = bench.sqlite("archive", 1).await;
    let (orders, _db) = bench.sqlite("orders", 1).await;
    let _archived = archive.acquire().await.expect("a connection");
    let held = orders.acquire().await.expect("a connection");
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            let pool = orders.clone();
            tokio::spawn(async move { pool.acquire().await.map(drop) })
        })
        .collect();
    let pending = "db_client_connection_pending_requests";
    eventually("two wait", LONG, async || {
        bench.page().await.of("orders", pending) == 2.0
    })
    .await;
    assert_eq!(bench.page().await.of("archive", pending), 0.0);
    drop(held);
    for waiter in waiters {
        waiter.await.expect("it ran").expect("its turn");
    }
    assert_eq!(bench.page().await.of("orders", pending), 0.0);

    let (short, _third) = bench.impatient("short", millis(50)).await;
    let _held = short.acquire().await.expect("a connection");
    assert!(short.acquire().await.is_err());
    let page = bench.page().await;
    let timeouts = "db_client_connection_timeouts_total";
    assert_eq!(page.of("short", timeouts), 1.0);
    assert_eq!(page.of("short", "leaktrace_connect_errors_total"), 0.0);
    assert_eq!(page.of("orders", timeouts), 0.0, "they only waited");
    // Read twice, counted once.
    assert_eq!(bench.page().await.of("short", timeouts), 1.0);
}

#[tokio::test]
async fn a_pool_that_is_closed_failed_nobody() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 1).await;
    orders.close().await;
    assert!(orders.acquire().await.is_err());
    let page = bench.page().await;
    assert_eq!(
        page.of("orders", "db_client_connection_timeouts_total"),
        0.0
    );
    assert_eq!(page.of("orders", "leaktrace_connect_errors_total"), 0.0);
}

#[tokio::test]
async fn the_limits_are_those_of_the_options() {
    let bench = Bench::new(silent()).await;
    let options = bench.options("orders", 2).min_connections(1).overflow(3);
    let (_archive, db) = bench.sqlite("archive", 4).await;
    let orders: SqlitePool = options.connect(&db.url).await.expect("a pool");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(orders.acquire().await.expect("a connection"));
    }
    let page = bench.page().await;
    assert_eq!(page.of("orders", "db_client_connection_max"), 5.0);
    assert_eq!(page.of("orders", "db_client_connection_idle_max"), 2.0);
    assert_eq!(page.of("orders", "db_client_connection_idle_min"), 1.0);
    assert_eq!(page.of("orders", "leaktrace_overflow"), 1.0);
    assert_eq!(page.of("orders", "leaktrace_utilization_ratio"), 0.6);
    assert_eq!(page.of("archive", "db_client_connection_idle_max"), 4.0);
    assert_eq!(page.of("archive", "db_client_connection_idle_min"), 0.0);
    assert_eq!(page.of("archive", "leaktrace_overflow"), 0.0);
}

#[tokio::test]
async fn the_oldest_hold_is_that_of_the_oldest_who_may_be_reported() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 4).await;
    let oldest = "leaktrace_oldest_hold_seconds";
    assert_eq!(bench.page().await.of("orders", oldest), 0.0);
    let listener = orders.labeled("listener").unreported();
    let _listening = listener.acquire().await.expect("a connection");
    tokio::time::sleep(millis(60)).await;
    assert_eq!(bench.page().await.of("orders", oldest), 0.0, "on purpose");
    let held = orders.acquire().await.expect("a connection");
    tokio::time::sleep(millis(60)).await;
    let _younger = orders.acquire().await.expect("a connection");
    let seen = bench.page().await.of("orders", oldest);
    let true_age = orders.holders()[1].held_for.as_secs_f64();
    assert!(seen >= 0.06 && seen <= true_age, "{seen} of {true_age}");
    held.release().await;
    let before = orders.holders()[1].held_for.as_secs_f64();
    let seen = bench.page().await.of("orders", oldest);
    let after = orders.holders()[1].held_for.as_secs_f64();
    assert!(
        before <= seen && seen <= after,
        "the younger is the oldest now: {seen}, not {before} to {after}"
    );
}

#[tokio::test]
async fn what_the_raw_pool_gives_out_is_untracked() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 2).await;
    let (archive, _other) = bench.sqlite("archive", 2).await;
    let _seen = archive.acquire().await.expect("a connection");
    let _unseen = orders.as_sqlx().acquire().await.expect("a connection");
    eventually("it stays", LONG, async || {
        bench.page().await.of("orders", "leaktrace_untracked") == 1.0
    })
    .await;
    let page = bench.page().await;
    assert_eq!(page.of("archive", "leaktrace_untracked"), 0.0);
    assert_eq!(count(&page, "orders", "used"), 1.0);
}

fn rollbacks(page: &Page, pool: &str, cause: &str) -> f64 {
    let labels = [(crate::ground::POOL, pool), ("cause", cause)];
    page.value("leaktrace_rollbacks_total", &labels)
}

const CAUSES: [&str; 6] = ["asked", "discarded", "dropped", "cut", "aborted", "unseen"];

fn all_rollbacks(page: &Page, pool: &str) -> [f64; 6] {
    CAUSES.map(|cause| rollbacks(page, pool, cause))
}

#[tokio::test]
async fn a_rollback_is_counted_once_under_its_cause_and_a_commit_is_none() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 1).await;
    let (archive, _other) = bench.sqlite("archive", 1).await;
    let begin = async || orders.begin().await.expect("a transaction");

    archive
        .begin()
        .await
        .expect("a transaction")
        .commit()
        .await
        .expect("a commit");
    begin().await.commit().await.expect("a commit");
    assert_eq!(all_rollbacks(&bench.page().await, "orders"), [0.0; 6]);

    drop(begin().await);
    begin().await.rollback().await.expect("a rollback");
    begin().await.discard();
    // A savepoint is not the transaction.
    let mut tx = begin().await;
    drop(tx.begin().await.expect("a savepoint"));
    tx.commit().await.expect("a commit");
    // On a connection that is kept.
    let mut conn = orders.acquire().await.expect("a connection");
    drop(conn.begin().await.expect("a transaction"));
    conn.release().await;
    // By text, which nobody ends.
    let mut conn = orders.acquire().await.expect("a connection");
    sqlx::raw_sql("BEGIN")
        .execute(&mut *conn)
        .await
        .expect("a statement");
    conn.release().await;
    let _settled = begin().await;

    let page = bench.page().await;
    assert_eq!(
        all_rollbacks(&page, "orders"),
        [1.0, 1.0, 2.0, 0.0, 0.0, 1.0],
        "{CAUSES:?}"
    );
    assert_eq!(all_rollbacks(&page, "archive"), [0.0; 6]);
}

#[tokio::test]
async fn a_begin_that_was_cut_and_a_commit_of_an_aborted_transaction_are_rollbacks_too() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::new(silent()).await;
    let proxy = Proxy::start(&db.url);
    let orders: PgPool = PgPoolOptions::new()
        .name("orders")
        .monitor(&bench.monitor)
        .max_connections(1)
        .acquire_timeout(LONG)
        // A question whether it is alive would meet the silence before BEGIN does.
        .alive_bypass(LONG)
        .connect(&proxy.url(&db.url))
        .await
        .expect("a pool");
    let mut tx = orders.begin().await.expect("a transaction");
    let failed = sqlx::query("SELECT 1 / 0").execute(&mut *tx).await;
    assert!(failed.is_err());
    tx.commit().await.expect("PostgreSQL says so");
    let page = bench.page().await;
    assert_eq!(rollbacks(&page, "orders", "aborted"), 1.0);
    assert_eq!(rollbacks(&page, "orders", "dropped"), 0.0);

    // BEGIN arrives, and its answer does not before nobody waits for it.
    checkout(&orders).await;
    proxy.stall_only(crate::support::Direction::ToClient);
    let cut = tokio::time::timeout(millis(200), orders.begin()).await;
    assert!(cut.is_err(), "nothing answers");
    proxy.resume();
    eventually("it was found open", LONG, async || {
        let page = bench.page().await;
        let cut = rollbacks(&page, "orders", "cut");
        if cut == 1.0 { Ok(()) } else { Err(page) }
    })
    .await;
    let page = bench.page().await;
    assert_eq!(
        all_rollbacks(&page, "orders"),
        [0.0, 0.0, 0.0, 1.0, 1.0, 0.0],
        "{CAUSES:?}"
    );
}

#[tokio::test]
async fn a_request_that_was_cut_is_counted_by_what_ran_and_one_that_ended_is_not() {
    let bench = Bench::new(silent()).await;
    let (orders, _db) = bench.sqlite("orders", 4).await;
    let hold = {
        let orders = orders.clone();
        move || async move {
            let _conn = orders.acquire().await.expect("a connection");
            tokio::time::sleep(LONG).await;
        }
    };
    let quick = {
        let orders = orders.clone();
        move || async move { drop(orders.acquire().await.expect("a connection")) }
    };
    let app = Router::new()
        .route("/hold", get(hold))
        .route("/quick", get(quick))
        .layer(bench.monitor.layer());
    let url = serve(app).await;
    let quick = reqwest::get(format!("{url}/quick"))
        .await
        .expect("an answer");
    assert!(quick.status().is_success());
    assert_eq!(bench.page().await.sum("leaktrace_cancelled_total"), 0.0);

    let client = tokio::spawn(reqwest::get(format!("{url}/hold")));
    eventually("it holds", LONG, async || orders.status().held == 1).await;
    client.abort();
    let idle = [("phase", "idle")];
    eventually("it was cut", LONG, async || {
        let page = bench.page().await;
        page.value("leaktrace_cancelled_total", &idle) == 1.0
    })
    .await;
    assert_eq!(bench.page().await.sum("leaktrace_cancelled_total"), 1.0);
}

#[tokio::test]
async fn a_pool_that_is_gone_holds_nothing_and_its_successor_counts_on() {
    let bench = Bench::new(silent()).await;
    let (orders, db) = bench.sqlite("orders", 2).await;
    let (archive, _other) = bench.sqlite("archive", 2).await;
    let _archived = archive.acquire().await.expect("a connection");
    drop(orders.begin().await.expect("a transaction"));
    // On its way back it is used, and the next one would be a second.
    eventually("it is back", LONG, async || orders.status().idle == 1).await;
    let conn = orders.acquire().await.expect("a connection");
    assert_eq!(rollbacks(&bench.page().await, "orders", "dropped"), 1.0);
    assert_eq!(count(&bench.page().await, "orders", "used"), 1.0);
    drop(conn);
    orders.close().await;
    drop(orders);
    eventually("it is gone", LONG, async || {
        bench.monitor.pools().len() == 1
    })
    .await;
    let page = bench.page().await;
    assert_eq!(count(&page, "orders", "used"), 0.0);
    assert_eq!(page.of("orders", "db_client_connection_max"), 0.0);
    assert_eq!(rollbacks(&page, "orders", "dropped"), 1.0);
    assert_eq!(count(&page, "archive", "used"), 1.0);

    let again = bench.options("orders", 3).connect(&db.url).await;
    let again: SqlitePool = again.expect("a pool");
    drop(again.begin().await.expect("a transaction"));
    let page = bench.page().await;
    assert_eq!(page.of("orders", "db_client_connection_max"), 3.0);
    assert_eq!(rollbacks(&page, "orders", "dropped"), 2.0);
}

#[tokio::test]
async fn at_off_everything_is_counted_but_the_age_of_holders() {
    let bench = Bench::new(silent().detail(leaktrace::Detail::Off)).await;
    let (orders, _db) = bench.sqlite("orders", 2).await;
    let _held = orders.acquire().await.expect("a connection");
    tokio::time::sleep(millis(20)).await;
    let page = bench.page().await;
    assert_eq!(count(&page, "orders", "used"), 1.0);
    assert_eq!(page.of("orders", "leaktrace_oldest_hold_seconds"), 0.0);
    assert_eq!(
        page.of("orders", "db_client_connection_wait_time_seconds_count"),
        1.0
    );
}

/// A finding is what is said, so it is compared with what is said.
#[tokio::test]
async fn a_finding_is_counted_by_kind_severity_and_pool() {
    let config = silent()
        .detail(leaktrace::Detail::Backtrace)
        .threshold(millis(50));
    let bench = Bench::new(config).await;
    let (orders, _db) = bench.sqlite("orders", 2).await;
    let (archive, _other) = bench.sqlite("archive", 2).await;
    let findings = |page: &Page, pool: &str, kind: Kind, severity: &str| {
        let labels = [
            (crate::ground::POOL, pool),
            ("kind", kind.as_str()),
            ("severity", severity),
        ];
        page.value("leaktrace_findings_total", &labels)
    };
    let page = bench.page().await;
    assert_eq!(page.sum("leaktrace_findings_total"), 0.0);
    // Every series is there before its first finding, so that this is seen as a step.
    for kind in Kind::ALL {
        let labels = [(crate::ground::POOL, "orders"), ("kind", kind.as_str())];
        assert!(
            !page.find("leaktrace_findings_total", &labels).is_empty(),
            "{kind}"
        );
    }
    let before = page.find("leaktrace_findings_total", &[]).len();

    let listener = archive.labeled("listener").unreported();
    let _innocent = listener.acquire().await.expect("a connection");
    let held = Scope::new("a job").run(orders.acquire()).await;
    let held = held.expect("a connection");
    eventually("it was said", LONG, async || {
        findings(&bench.page().await, "orders", Kind::HeldTooLong, "warn") == 1.0
    })
    .await;
    held.release().await;
    eventually("its return was said", LONG, async || {
        findings(&bench.page().await, "orders", Kind::ReturnedLate, "info") == 1.0
    })
    .await;

    let (short, _third) = bench.impatient("short", millis(100)).await;
    // Only the exhaustion is to be said of it.
    let on_purpose = short.labeled("x").unreported();
    let _on_purpose = on_purpose.acquire().await.expect("a connection");
    assert!(short.acquire().await.is_err());
    eventually("somebody was failed", LONG, async || {
        findings(&bench.page().await, "short", Kind::Exhausted, "error") == 1.0
    })
    .await;
    let page = bench.page().await;
    for pool in ["orders", "archive"] {
        assert_eq!(findings(&page, pool, Kind::Exhausted, "error"), 0.0);
    }
    // No series but those that were there from the start of each pool.
    let after = page.find("leaktrace_findings_total", &[]).len();
    assert_eq!(after, before / 2 * 3);
}
