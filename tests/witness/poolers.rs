//! Behind a pooler a backend belongs to nobody: nothing is said of it.

use leaktrace::Kind;
use reqwest::Url;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, Postgres, raw_sql};

use crate::bench::{Bench, SEATS, loud, never_says, of, oldest, says};
use crate::support::db::postgres_database;

/// The database of the test, through the PgBouncer of `scripts/servers`. `None` where there is none.
fn through_pgbouncer(url: &str) -> Option<String> {
    let pooler = std::env::var("LEAKTRACE_TEST_PGBOUNCER_URL").ok();
    let pooler = pooler.filter(|url| !url.is_empty())?;
    let mut through = Url::parse(&pooler).expect("a URL");
    through.set_path(Url::parse(url).expect("a URL").path());
    // A prepared statement would be looked for on another backend.
    through.set_query(Some("statement-cache-capacity=0"));
    Some(through.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_pgbouncer_the_witness_is_silent() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let Some(url) = through_pgbouncer(&test.url) else {
        return;
    };
    let bench = Bench::<Postgres>::at(&url, loud(), 4).await;
    raw_sql(SEATS).execute(&bench.pool).await.expect("a table");
    // Idle, outside of any transaction. Its backend will be somebody else's.
    let mut conn = bench.pool.acquire().await.expect("a connection");
    let raw: &mut PgConnection = &mut conn;
    raw_sql("SELECT 1").execute(raw).await.expect("an answer");
    // Somebody else, in a transaction: the backend that was asked for its pid a moment ago.
    let options: PgConnectOptions = url.parse().expect("a URL");
    let mut other = sqlx::ConnectOptions::connect(&options)
        .await
        .expect("another client");
    raw_sql("BEGIN; UPDATE seats SET taken = 1 WHERE id = 1")
        .execute(&mut other)
        .await
        .expect("begun");
    let finding = bench.finding().await;
    assert_eq!(finding.kind, Kind::HeldTooLong, "{finding}");
    assert!(oldest(&finding).server.is_none(), "{finding}");
    says(&finding, &["was not seen"]);
    never_says(&finding, &["(server", "blocked by", "idle in transaction"]);
    drop(conn);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_pgbouncer_holders_in_transactions_are_not_told_apart_by_backends() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let Some(url) = through_pgbouncer(&test.url) else {
        return;
    };
    let bench = Bench::<Postgres>::at(&url, loud(), 4).await;
    raw_sql(SEATS).execute(&bench.pool).await.expect("a table");
    let mut first = bench.pool.begin().await.expect("a transaction");
    sqlx::query("UPDATE seats SET taken = 7 WHERE id = 1")
        .execute(&mut *first)
        .await
        .expect("locked");
    let pool = bench.pool.clone();
    let second = tokio::spawn(async move {
        raw_sql("UPDATE seats SET taken = 8 WHERE id = 1")
            .execute(&pool)
            .await
    });
    // Every backend of the pooler that is free serves a transaction: one more has to be made.
    bench
        .findings
        .wait_for("both findings", crate::bench::PATIENCE, |all| {
            (all.len() >= 2).then_some(())
        })
        .await;
    for finding in bench.findings.all() {
        never_says(&finding, &["(server", "blocked by"]);
    }
    assert_eq!(of(&bench.findings, Kind::HeldTooLong).len(), 1);
    first.rollback().await.expect("rolled back");
    second.await.expect("no panic").expect("goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pooler_the_same_holders_are_told_apart() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let bench = Bench::<Postgres>::at(&test.url, loud(), 4).await;
    raw_sql(SEATS).execute(&bench.pool).await.expect("a table");
    let mut first = bench.pool.begin().await.expect("a transaction");
    sqlx::query("UPDATE seats SET taken = 7 WHERE id = 1")
        .execute(&mut *first)
        .await
        .expect("locked");
    let pool = bench.pool.clone();
    let second = tokio::spawn(async move {
        raw_sql("UPDATE seats SET taken = 8 WHERE id = 1")
            .execute(&pool)
            .await
    });
    let blocked = bench
        .findings
        .wait_for("the blocked one", crate::bench::PATIENCE, |all| {
            let is_it = |finding: &&leaktrace::Finding| finding.kind == Kind::HeldTooLong;
            all.iter().find(is_it).cloned()
        })
        .await;
    says(
        &blocked,
        &[
            "(server: in flight, pid ",
            "blocked by another holder of this pool, taken at ",
        ],
    );
    first.rollback().await.expect("rolled back");
    second.await.expect("no panic").expect("goes on");
}
