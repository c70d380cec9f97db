//! User code: `#[sqlx::test]`. It makes a database per test and hands out sqlx's own pool, so the
//! first line of such a test adopts it: `let pool = PgPool::from(pool)`.
//!
//! With SQLite the attribute needs no variable (its files lie in `target/sqlx/test-dbs`). With
//! PostgreSQL it reads `DATABASE_URL` while the test runs, and a process cannot set that for itself
//! without `unsafe`. So the test on PostgreSQL runs this binary once more, for its own name alone,
//! with the variable set from `LEAKTRACE_TEST_POSTGRES_URL`.

use crate::db::{PgPool, SqlitePool, all_back};
use crate::support::{Db, ran_on};

#[sqlx::test(migrations = "tests/adoption/social/migrations")]
async fn a_test_of_sqlite_adopts_its_pool(pool: sqlx::SqlitePool) -> sqlx::Result<()> {
    ran_on(Db::Sqlite);
    let pool = SqlitePool::from(pool);
    let mut tx = pool.begin().await?;
    sqlx::query("INSERT INTO user (username, token) VALUES ('ada', 'x')")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM user")
        .fetch_one(&pool)
        .await?;
    assert_eq!(users, 1);
    all_back(&pool).await;
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn a_test_of_sqlite_adopts_a_pool_it_configures(
    options: sqlx::sqlite::SqlitePoolOptions,
    connect: sqlx::sqlite::SqliteConnectOptions,
) -> sqlx::Result<()> {
    ran_on(Db::Sqlite);
    let pool = SqlitePool::from(options.max_connections(1).connect_with(connect).await?);
    let one: i64 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await?;
    assert_eq!((one, pool.options().get_max_connections()), (1, 1));
    all_back(&pool).await;
    pool.close().await;
    Ok(())
}

/// Set for the second run of this binary, to the URL that it shall use.
const IN_SECOND_RUN: &str = "LEAKTRACE_ADOPTION_SECOND_RUN";

#[test]
#[allow(unnameable_test_items)]
fn a_test_of_postgres_adopts_its_pool() {
    // The attribute's own function is called, not collected: it must not run without its variable.
    #[sqlx::test(migrations = "tests/adoption/migrations")]
    async fn on_postgres(pool: sqlx::PgPool) -> sqlx::Result<()> {
        let pool = PgPool::from(pool);
        let mut tx = pool.begin().await?;
        sqlx::query("INSERT INTO notes (body) VALUES ('tested')")
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
            .fetch_one(&pool)
            .await?;
        assert_eq!(notes, 1);
        all_back(&pool).await;
        Ok(())
    }

    if std::env::var_os(IN_SECOND_RUN).is_some() {
        return on_postgres().expect("the test of a user passes");
    }
    if !Db::Postgres.available() {
        return;
    }
    ran_on(Db::Postgres);
    let url = Db::Postgres.server_url().expect("it is available");
    let name = "sqlx_test::a_test_of_postgres_adopts_its_pool";
    let binary = std::env::current_exe().expect("a test knows its binary");
    let run = std::process::Command::new(binary)
        .args([name, "--exact", "--nocapture"])
        .env(IN_SECOND_RUN, "1")
        .env("DATABASE_URL", url)
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
}
