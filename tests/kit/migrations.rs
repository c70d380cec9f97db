//! The recipe of docs/pools.md for migrations on start, under the time limits that the page recommends.

use std::path::PathBuf;
use std::time::Duration;

use leaktrace::PgPool;
use leaktrace::kit::PoolSettings;
use sqlx::migrate::Migrator;

use crate::settle::open;
use crate::support::TestDb;
use crate::support::db::postgres_database;

/// The statement that the page has before the run.
fn no_limits() -> &'static str {
    let page = include_str!("../../docs/pools.md");
    let (_, rest) = page
        .split_once("sqlx::raw_sql(\"SET statement_timeout")
        .expect("the page has the recipe");
    let (rest, _) = rest.split_once('"').expect("its end");
    let statement = format!("SET statement_timeout{}", rest.replace("\\\n", ""));
    Box::leak(statement.into_boxed_str())
}

/// Steps that take longer than the page's statement timeout.
struct Steps(PathBuf);

impl Steps {
    fn of(test: &TestDb) -> Self {
        let folder = std::env::temp_dir().join(format!("{}_steps", test.name()));
        std::fs::create_dir(&folder).expect("a folder");
        let slow = "SELECT pg_sleep(3); CREATE TABLE notes (id bigint)";
        std::fs::write(folder.join("0001_notes.sql"), slow).expect("a step");
        Self(folder)
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn limited(test: &TestDb) -> PoolSettings {
    PoolSettings::default()
        .acquire_timeout(Duration::from_secs(60))
        .statement_timeout(Some(Duration::from_secs(1)))
        .lock_timeout(Some(Duration::from_secs(1)))
        .idle_in_transaction_timeout(Some(Duration::from_secs(1)))
        .url(&test.url)
        .expect("a URL")
}

/// What a process does at its start.
async fn migrate(
    settings: &PoolSettings,
    steps: &Steps,
    before: Option<&'static str>,
) -> Result<(), String> {
    let pool: PgPool = open(settings).await.expect("a pool");
    let steps = Migrator::new(steps.0.as_path()).await.expect("steps");
    let migrations = pool.labeled("migrations").unreported();
    let mut conn = migrations.acquire().await.expect("a connection");
    conn.close_on_drop();
    if let Some(sql) = before {
        let set = sqlx::raw_sql(sql).execute(&mut *conn).await;
        set.expect("settings of the session");
    }
    let run = steps.run(&mut *conn).await;
    run.map_err(|error| format!("{error} {error:?}"))
}

#[tokio::test]
async fn a_long_step_and_whoever_waits_for_it_outlive_the_limits_of_requests() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let (settings, steps) = (limited(&test), Steps::of(&test));
    let run = || migrate(&settings, &steps, Some(no_limits()));
    let (one, other) = tokio::join!(run(), run());
    one.expect("migrated");
    other.expect("migrated");
}

/// What the recipe is for: without it the limits end both.
#[tokio::test]
async fn without_the_recipe_the_limits_of_requests_end_a_migration() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let (settings, steps) = (limited(&test), Steps::of(&test));
    let error = migrate(&settings, &steps, None)
        .await
        .expect_err("3 s of 1 s");
    assert!(error.contains("statement timeout"), "{error}");
}
