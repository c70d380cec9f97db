//! No password is on a page, whatever was done with it.

use leaktrace::metrics::Metrics;
use leaktrace::{PgPool, PgPoolOptions, Scope};
use reqwest::Url;

use crate::ground::{Bench, millis, silent};
use crate::support::db::postgres_database;

#[tokio::test]
async fn neither_the_url_nor_an_error_nor_a_statement_shows_it() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let options = Metrics::options().routes(10).sites(10);
    let bench = Bench::with(silent(), options).await;
    let right = Url::parse(&db.url).expect("a URL");
    let mut wrong = right.clone();
    let secret = "hunter2-canary";
    wrong.set_password(Some(secret)).expect("it has one");
    let mut pools = Vec::new();
    for url in [&right, &wrong] {
        let pool: PgPool = PgPoolOptions::new()
            .monitor(&bench.monitor)
            .acquire_timeout(millis(2000))
            .connect_lazy(url.as_str())
            .expect("a pool");
        pools.push(pool);
    }
    assert!(pools[1].acquire().await.is_err());
    Scope::new("a job")
        .run(async {
            let sql = format!("SELECT '{secret}' AS password");
            let sql = sqlx::AssertSqlSafe(sql);
            sqlx::query(sql).execute(&pools[0]).await.expect("a row");
            pools[0].acquire().await.expect("one").release().await;
        })
        .await;
    for pool in &pools {
        bench.metrics.health(pool).await;
    }
    let page = bench.page().await.0;
    assert!(
        page.contains("a job") && page.contains("leaktrace_healthy"),
        "{page}"
    );
    let password = right.password().expect("it has one");
    for secret in [password, secret] {
        assert!(!page.contains(secret), "{page}");
    }
}
