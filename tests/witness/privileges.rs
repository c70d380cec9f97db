//! What a database user may not see is not known, and nothing is guessed in its place.

use leaktrace::{Kind, ServerState};
use reqwest::Url;
use sqlx::{Connection, MySql, MySqlConnection, PgConnection, Postgres, raw_sql};

use crate::bench::{Bench, SEATS, Server, loud, never_says, oldest, says};
use crate::support::{TestDb, database};

/// The URL of a user of this name, who may use the tables of the test and nothing else.
async fn plain(test: &TestDb, statements: &[&str]) -> (String, String) {
    let name = format!("plain_{}", test.name().trim_start_matches("leaktrace_"));
    let fill = |text: &str| text.replace("{user}", &name).replace("{db}", test.name());
    for statement in statements {
        let sql = sqlx::AssertSqlSafe(fill(statement));
        match test.url.starts_with("postgres") {
            true => {
                let mut conn = PgConnection::connect(&test.url).await.expect("a server");
                raw_sql(sql).execute(&mut conn).await.expect("a user");
            }
            false => {
                let mut conn = MySqlConnection::connect(&test.url).await.expect("a server");
                raw_sql(sql).execute(&mut conn).await.expect("a user");
            }
        }
    }
    let mut url = Url::parse(&test.url).expect("a URL");
    url.set_username(&name).expect("a name");
    url.set_password(Some("word")).expect("a password");
    (url.into(), name)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statement_of_another_user_is_not_shown_and_its_pid_is() {
    let Some(test) = database(Postgres::DB).await else {
        return;
    };
    let mut other = PgConnection::connect(&test.url).await.expect("a server");
    raw_sql(SEATS).execute(&mut other).await.expect("a table");
    let (url, user) = plain(
        &test,
        &[
            "CREATE ROLE {user} LOGIN PASSWORD 'word'",
            "GRANT SELECT, UPDATE ON seats TO {user}",
        ],
    )
    .await;
    let bench = Bench::<Postgres>::at(&url, loud(), 4).await;
    let pid: i64 = sqlx::query_scalar(Postgres::OWN_PID)
        .fetch_one(&mut other)
        .await
        .expect("a pid");
    raw_sql("BEGIN; UPDATE seats SET taken = 1 WHERE id = 1")
        .execute(&mut other)
        .await
        .expect("locked");
    let pool = bench.pool.clone();
    let blocked = tokio::spawn(async move {
        sqlx::query("UPDATE seats SET taken = 8 WHERE id = 1")
            .execute(&pool)
            .await
    });
    let finding = bench.finding().await;
    says(
        &finding,
        &[&format!(
            "blocked by pid {pid}, not of this pool, user leaktrace"
        )],
    );
    never_says(
        &finding,
        &[
            "insufficient privilege",
            "UPDATE seats SET taken = ? WHERE id = ?   by",
        ],
    );
    let [blocker] = oldest(&finding)
        .server
        .as_ref()
        .expect("asked")
        .blocked_by
        .as_slice()
    else {
        panic!("{finding}");
    };
    assert_eq!(blocker.sql, None);
    other.close().await.expect("closed");
    blocked.await.expect("no panic").expect("goes on");
    bench.pool.close().await;
    let drop_user = format!("DROP OWNED BY {user}; DROP ROLE {user}");
    let mut conn = PgConnection::connect(&test.url).await.expect("a server");
    raw_sql(sqlx::AssertSqlSafe(drop_user))
        .execute(&mut conn)
        .await
        .expect("no user");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_user_may_not_see_is_not_claimed() {
    let Some(test) = database(MySql::DB).await else {
        return;
    };
    let (url, user) = plain(
        &test,
        &[
            "CREATE USER '{user}'@'%' IDENTIFIED BY 'word'",
            "GRANT SELECT, INSERT, UPDATE, CREATE ON {db}.* TO '{user}'@'%'",
        ],
    )
    .await;
    let bench = Bench::<MySql>::at(&url, loud(), 4).await;
    raw_sql(SEATS).execute(&bench.pool).await.expect("a table");
    let mut conn = bench.pool.acquire().await.expect("a connection");
    let raw: &mut MySqlConnection = &mut conn;
    raw_sql("BEGIN").execute(&mut *raw).await.expect("begun");
    raw_sql("UPDATE seats SET taken = 1 WHERE id = 1")
        .execute(&mut *raw)
        .await
        .expect("one row");
    let finding = bench.finding().await;
    assert_eq!(finding.kind, Kind::HeldTooLong, "{finding}");
    // Its own thread it may see.
    let server = oldest(&finding).server.as_ref().expect("asked");
    assert_eq!(server.state, ServerState::Idle, "{finding}");
    never_says(
        &finding,
        &["idle in transaction", "with the transaction open"],
    );
    drop(conn);
    bench.pool.close().await;
    let drop_user = format!("DROP USER '{user}'@'%'");
    let mut conn = MySqlConnection::connect(&test.url).await.expect("a server");
    raw_sql(sqlx::AssertSqlSafe(drop_user))
        .execute(&mut conn)
        .await
        .expect("no user");
}
