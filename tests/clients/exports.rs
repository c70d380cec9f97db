//! A CSV export that is streamed out of the database, and its readers.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use futures::TryStreamExt;
use leaktrace::{Detail, HolderKind, Kind, PgPool};
use sqlx::{Postgres, Row};

use crate::bench::{Bench, PATIENCE, assert_names, quick};
use crate::support::db::{TestDb, postgres_database};
use crate::support::eventually;
use crate::web::{Client, ask, serve};

/// Far more than sockets and servers buffer.
const ROWS: &str = "SELECT i, repeat('x', 1000) FROM generate_series(1, 100000) AS rows(i)";

async fn export(State(pool): State<PgPool>) -> Body {
    Body::from_stream(
        async_stream::try_stream! {
            let mut rows = sqlx::query(ROWS).fetch(&pool);
            while let Some(row) = rows.try_next().await? {
                let line = format!("{};{}\n", row.get::<i32, _>(0), row.get::<String, _>(1));
                yield line;
            }
        }
        .map_err(|error: sqlx::Error| error),
    )
}

/// Longer than a busy server takes for its first row.
const OVERDUE: Duration = Duration::from_secs(3);

async fn service() -> Option<(TestDb, Bench, PgPool, std::net::SocketAddr)> {
    let db = postgres_database().await?;
    let bench = Bench::new(quick().detail(Detail::Backtrace).threshold(OVERDUE));
    let pool = bench.open_pool::<Postgres>(&db, 1, PATIENCE).await;
    let app = Router::new().route("/export.csv", get(export));
    let app = app.layer(bench.monitor.layer()).with_state(pool.clone());
    let addr = serve(app).await;
    Some((db, bench, pool, addr))
}

#[tokio::test]
async fn a_slow_reader_is_named_and_its_leaving_gives_the_connection_back() {
    let Some((_db, bench, pool, addr)) = service().await else {
        return;
    };
    let mut client = Client::send(addr, "GET /export.csv").await;
    assert_names(&client.some().await, &["HTTP/1.1 200"]);
    let finding = bench
        .findings
        .wait_for("overdue", PATIENCE, |findings| {
            let mut findings = findings.iter();
            findings
                .find(|finding| finding.kind == Kind::HeldTooLong)
                .cloned()
        })
        .await;
    let holder = &finding.holders[0];
    assert_eq!(holder.kind, HolderKind::Statement);
    let route = holder.scope.as_ref().map(|scope| scope.route.as_str());
    assert_eq!(route, Some("GET /export.csv"));
    assert_names(&finding.headline, &["rows not read", "generate_series"]);
    assert_names(
        finding.remedy.as_deref().unwrap_or_default(),
        &["its rows are not being read", "the reader is slow"],
    );
    client.leave().await;
    eventually("cut", PATIENCE, async || {
        bench.monitor.requests().cancelled == 1
    })
    .await;
    assert_eq!(bench.monitor.cancelled().statement, 1);
    pool.acquire().await.expect("back");
}

#[tokio::test]
async fn a_reader_that_reads_gets_all_of_it_and_nobody_is_told() {
    let Some((_db, bench, pool, addr)) = service().await else {
        return;
    };
    bench.monitor.set_threshold(PATIENCE);
    let answer = ask(addr, "GET /export.csv").await;
    assert!(answer.contains("100000;"), "to the last row");
    eventually("complete", PATIENCE, async || {
        bench.monitor.requests().completed == 1
    })
    .await;
    leaktrace::assert_no_leaks!(pool);
    assert!(bench.findings.is_empty(), "{:?}", bench.findings.all());
}

#[tokio::test]
async fn a_hundred_readers_that_leave_in_the_middle_lose_no_permit() {
    let Some((_db, bench, pool, addr)) = service().await else {
        return;
    };
    bench.monitor.set_threshold(PATIENCE);
    for _ in 0..100 {
        let mut client = Client::send(addr, "GET /export.csv").await;
        assert_names(&client.some().await, &["HTTP/1.1 200"]);
        client.leave().await;
    }
    eventually("all cut", PATIENCE, async || {
        match bench.monitor.requests().cancelled {
            100 => Ok(()),
            seen => Err(seen),
        }
    })
    .await;
    pool.acquire().await.expect("the one permit is back");
    let status = pool.status();
    assert_eq!(
        (status.held + status.waiting, status.max),
        (0, 1),
        "{status:?}"
    );
}
