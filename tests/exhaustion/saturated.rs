//! `saturated`: young, working holders: the pool is small for its load.

use futures::future::join_all;
use leaktrace::{CauseKind, PgPool, Scope};
use sqlx::Postgres;

use crate::at;
use crate::bench::{Bench, PATIENCE, assert_names, cause};
use crate::support::db::postgres_database;

async fn slow(conn: &mut leaktrace::Conn<Postgres>) {
    let query = sqlx::query("SELECT pg_sleep(0.15)");
    query.execute(conn).await.expect("a row");
}

async fn one(pool: &PgPool) {
    slow(&mut pool.acquire().await.expect("in time")).await;
}

async fn two(pool: &PgPool) {
    let mut tx = pool.begin().await.expect("in time");
    slow(&mut tx).await;
    slow(&mut tx).await;
    tx.commit().await.expect("saved");
}

#[tokio::test]
async fn the_sites_of_most_connection_time_are_named() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::new(crate::bench::quick().wait(std::time::Duration::from_secs(1)));
    let pool = bench.open_pool::<Postgres>(&db, 2, PATIENCE).await;
    let load = async {
        for _ in 0..3 {
            let ones = join_all((0..8).map(|_| Scope::new("GET /one").run(one(&pool))));
            let twos = join_all((0..8).map(|_| Scope::new("GET /two").run(two(&pool))));
            let three = sqlx::query("SELECT pg_sleep(0.01)").execute(&pool);
            let (_, _, three) = tokio::join!(ones, twos, three);
            three.expect("a row");
        }
    };
    let finding = async {
        let finding = bench.waiting().await;
        let saturated = cause(&finding, CauseKind::Saturated);
        let saturated = saturated.unwrap_or_else(|| panic!("{finding}"));
        assert_names(
            &saturated.detail,
            &[
                "most connection time in the last minute",
                &at!("slow(&mut pool.acquire()"),
            ],
        );
        assert!(!saturated.detail.contains("fans out"), "{finding}");
        bench.never_said(&[CauseKind::Nested, CauseKind::Deadlock, CauseKind::Overdue]);
    };
    tokio::join!(load, finding);
}

#[tokio::test]
async fn a_request_that_is_most_of_those_who_wait_is_named() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let pool = bench.open_pool::<Postgres>(&db, 2, PATIENCE).await;
    let report = Scope::new("GET /report").run(async {
        let parts = (0..12).map(|_| sqlx::query("SELECT pg_sleep(0.2)").execute(&pool));
        for part in join_all(parts).await {
            part.expect("a row");
        }
    });
    let (_, (_, saturated)) = tokio::join!(report, bench.cause(CauseKind::Saturated));
    assert_names(
        &saturated.detail,
        &["one request of GET /report is", "it fans out"],
    );
}
