//! The other ways to a database lead where they say.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::support::db::{postgres_database, with_parameter};
use crate::support::doors::{TlsDoor, through_pgbouncer};
use crate::support::eventually;

/// What a client asks that must hear its own number.
async fn ask(conn: &mut PgConnection, number: i64, named: bool) -> Result<i64, sqlx::Error> {
    let sql = match number {
        1 => "SELECT 1 + $1",
        2 => "SELECT 2 + $1",
        _ => "SELECT 3 + $1",
    };
    let query = sqlx::query_scalar(sql).bind(0_i64).persistent(named);
    query.fetch_one(conn).await
}

#[tokio::test]
async fn clients_of_pgbouncer_get_each_others_answers_with_and_without_names() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let Some(url) = through_pgbouncer(&test) else {
        return;
    };
    for named in [false, true] {
        eventually("a wrong answer", Duration::from_secs(30), async || {
            let connect = || PgConnection::connect(&url);
            let (mut one, mut two, mut three) =
                tokio::try_join!(connect(), connect(), connect()).expect("connections");
            let mut last = None;
            for _ in 0..20 {
                let answers = tokio::join!(
                    ask(&mut one, 1, named),
                    ask(&mut two, 2, named),
                    ask(&mut three, 3, named)
                );
                let wrong = |answer: &Result<i64, sqlx::Error>, right| {
                    answer.as_ref().is_ok_and(|got| *got != right)
                };
                let (a, b, c) = &answers;
                if wrong(a, 1) || wrong(b, 2) || wrong(c, 3) {
                    return Ok(());
                }
                last = Some(answers);
            }
            Err(last)
        })
        .await;
    }
}

#[tokio::test]
async fn the_tls_server_is_trusted_by_its_authority_and_for_localhost_alone() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let Some(door) = TlsDoor::of(&test) else {
        return;
    };
    for (host, good) in [("localhost", true), ("127.0.0.1", false)] {
        let url = with_parameter(&door.url(host), "sslmode", "verify-full");
        let url = with_parameter(&url, "sslrootcert", &door.authority);
        let options: PgConnectOptions = url.parse().expect("a URL");
        let connected = options.connect().await;
        assert_eq!(connected.is_ok(), good, "{host}: {connected:?}");
    }
}
