//! Five hundred requests at a time on ten connections: nothing is lost, and nothing is made up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use leaktrace::{CauseKind, Config, Detail, Kind, PgPool};
use sqlx::Postgres;
use tokio::task::JoinSet;

use crate::bench::{Bench, PATIENCE};
use crate::support::db::postgres_database;
use crate::support::eventually;
use crate::web::serve;

const CLIENTS: usize = 500;

macro_rules! handler {
    ($name:ident, $pool:ty) => {
        async fn $name(State(pool): State<$pool>) -> StatusCode {
            let work = async {
                let mut tx = pool.begin().await?;
                sqlx::query("SELECT 1").execute(&mut *tx).await?;
                sqlx::query("SELECT 2").execute(&mut *tx).await?;
                tx.commit().await?;
                sqlx::query("SELECT 3").execute(&pool).await
            };
            match work.await {
                Ok(_) => StatusCode::OK,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            }
        }
    };
}

handler!(on_raw, sqlx::PgPool);
handler!(on_ours, PgPool);

/// Keeps that many clients asking for that long. How many were served, and how many failed.
async fn ask_for(app: Router, time: Duration) -> (u64, u64) {
    let addr = serve(app).await;
    let (served, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let client = reqwest::Client::new();
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, served, failed) = (client.clone(), served.clone(), failed.clone());
        clients.spawn(async move {
            while Instant::now() < until {
                let answer = client.get(format!("http://{addr}/order")).send().await;
                let is_served = answer.is_ok_and(|answer| answer.status() == 200);
                let counter = if is_served { &served } else { &failed };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("no panic");
    }
    (
        served.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed),
    )
}

/// Ten seconds; `examples/load.rs` does it for as long as is wanted, with figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_permit_is_lost_no_finding_is_false_and_nobody_fails_who_would_not_on_raw_sqlx() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let raw = sqlx::postgres::PgPoolOptions::new().max_connections(10);
    let raw = raw.connect(&db.url).await.expect("a server");
    let app = Router::new().route("/order", get(on_raw));
    let (_, failed_raw) = ask_for(app.with_state(raw.clone()), Duration::from_secs(3)).await;
    raw.close().await;

    let bench = Bench::new(Config::default().detail(Detail::Backtrace));
    let pool = bench.pool::<Postgres>(&db, 10, Duration::from_secs(30));
    let app = Router::new().route("/order", get(on_ours));
    let app = app.layer(bench.monitor.layer()).with_state(pool.clone());
    let (served, failed) = ask_for(app, Duration::from_secs(10)).await;
    assert!(served > 500, "{served}");
    assert_eq!((failed, failed_raw), (0, 0));

    // That ten connections are few for five hundred is true, if it is said.
    let honest = [
        CauseKind::Saturated,
        CauseKind::Returning,
        CauseKind::Connecting,
        CauseKind::Stalled,
    ];
    for finding in bench.findings.all() {
        assert_eq!(finding.kind, Kind::Exhausted, "{finding}");
        for cause in &finding.causes {
            assert!(honest.contains(&cause.kind), "{finding}");
        }
    }
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(pool.acquire().await.expect("a permit"));
    }
    drop(all);
    eventually("nothing is left", PATIENCE, async || {
        let status = pool.status();
        status.held + status.returning + status.waiting + status.untracked == 0
            && bench.monitor.holders().is_empty()
            && bench.monitor.waiters().is_empty()
    })
    .await;
}
