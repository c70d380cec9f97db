//! The start: tries, pauses, and what no other try can help.

use std::time::{Duration, Instant};

use leaktrace::kit::{ConnectError, PoolSettings};
use leaktrace::{Config, Finding, Monitor, PgPool};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::net::{TcpListener, TcpSocket};

use crate::settle::{open, read};
use crate::support::db::postgres_database;
use crate::support::events::Captured;
use crate::support::{Capture, Events, Proxy, TestDb};

const LONG: Duration = Duration::from_secs(60);

fn nowhere(port: u16) -> PoolSettings {
    PoolSettings::default()
        .start_tries(3)
        .url(&format!("postgres://app:hunter2@127.0.0.1:{port}/orders"))
        .expect("a URL")
}

/// A port that refuses for as long as the socket lives: bound, so that nobody else gets it, and not
/// listening.
fn closed_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = "127.0.0.1:0".parse().expect("an address");
    socket.bind(any).expect("a port");
    let port = socket.local_addr().expect("its address").port();
    (socket, port)
}

#[tokio::test]
async fn a_server_that_refuses_is_tried_as_often_as_told_with_a_line_each() {
    let events = Events::new();
    let _subscriber = events.here();
    let (_socket, port) = closed_port();
    let start = Instant::now();
    let error = open::<sqlx::Postgres>(&nowhere(port))
        .await
        .expect_err("nobody there");
    assert!(
        matches!(error, ConnectError::Failed { tries: 3, .. }),
        "{error:?}"
    );
    // Pauses of 0.2 s and 0.4 s.
    assert!(
        start.elapsed() >= Duration::from_millis(600),
        "{:?}",
        start.elapsed()
    );
    let text = error.to_string();
    assert!(
        text.contains(&format!("127.0.0.1:{port}")) && text.contains("3 tries"),
        "{text}"
    );
    let kit = |event: &Captured| event.target == "leaktrace::kit";
    let lines: Vec<String> = events
        .all()
        .into_iter()
        .filter(kit)
        .map(|event| event.message)
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].contains("try 1 of 3") && lines[1].contains("try 2 of 3"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_server_that_comes_up_later_is_found() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let proxy = Proxy::start(&test.url);
    proxy.refuse();
    let settings = PoolSettings::default()
        .start_tries(20)
        .url(&proxy.url(&test.url))
        .expect("a URL");
    let opening = tokio::spawn(async move { open::<sqlx::Postgres>(&settings).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.accept();
    let pool: PgPool = opening.await.expect("no panic").expect("a pool");
    sqlx::query("SELECT 1")
        .execute(&pool)
        .await
        .expect("an answer");
}

#[tokio::test]
async fn a_server_that_never_answers_takes_the_connect_timeout_for_each_try() {
    // Takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let settings = nowhere(port)
        .start_tries(2)
        .connect_timeout(Duration::from_millis(300));
    let start = Instant::now();
    let error = open::<sqlx::Postgres>(&settings)
        .await
        .expect_err("silence");
    assert!(
        start.elapsed() >= Duration::from_millis(800),
        "{:?}",
        start.elapsed()
    );
    assert!(error.to_string().contains("connect timeout"), "{error}");
    drop(listener);
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_again() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut url: reqwest::Url = test.url.parse().expect("a URL");
    url.set_password(Some("not-the-password")).expect("a URL");
    let settings = PoolSettings::default().url(url.as_str()).expect("a URL");
    let error = open::<sqlx::Postgres>(&settings)
        .await
        .expect_err("a password");
    assert!(
        matches!(error, ConnectError::Failed { tries: 1, .. }),
        "{error:?}"
    );
    assert!(
        !format!("{error} {error:?}").contains("not-the-password"),
        "{error:?}"
    );
}

/// A role that the server lets in so often at once.
async fn role_with_limit(test: &TestDb, limit: u32) -> (String, String) {
    let role = format!("{}_few", test.name());
    let make = format!("CREATE ROLE {role} LOGIN PASSWORD 'word' CONNECTION LIMIT {limit}");
    execute(test, make).await;
    let mut url: reqwest::Url = test.url.parse().expect("a URL");
    url.set_username(&role).expect("a user");
    url.set_password(Some("word")).expect("a password");
    (role, url.into())
}

async fn execute(test: &TestDb, sql: String) {
    let mut conn = PgConnection::connect(&test.url).await.expect("a session");
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await;
    done.expect("an answer");
}

#[tokio::test]
async fn a_warm_up_beyond_what_the_server_takes_says_how_far_it_came_and_what_the_server_said() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let (role, url) = role_with_limit(&test, 3).await;
    let list = [
        ("DATABASE_URL", &*url),
        ("DB_MIN_CONNECTIONS", "5"),
        ("DB_WARM_UP", "yes"),
        ("DB_ACQUIRE_TIMEOUT_SECS", "8"),
    ];
    let settings = read(&list).expect("settings");
    let refused = open::<sqlx::Postgres>(&settings).await;
    // The twin: as many as the server takes. Sessions that were closed are counted for a moment.
    let fits = settings.min_connections(3).acquire_timeout(LONG);
    let taken = open::<sqlx::Postgres>(&fits).await;
    let size = taken.as_ref().map(|pool| pool.size());
    if let Ok(pool) = &taken {
        pool.close().await;
    }
    execute(&test, format!("DROP ROLE {role}")).await;

    let text = refused.expect_err("five of three").to_string();
    for part in [
        "3 of 5 connections",
        "acquire timeout (8s)",
        "too many connections for role",
        "lower DB_MIN_CONNECTIONS (5)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("connect timeout"), "{text}");
    assert_eq!(size.expect("a pool"), 3);
}

#[tokio::test]
async fn a_warm_up_without_an_answer_names_the_acquire_timeout() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let proxy = Proxy::start(&test.url);
    let settings = PoolSettings::default()
        .url(&proxy.url(&test.url))
        .expect("a URL")
        .acquire_timeout(Duration::from_secs(3));
    let opening = settings.clone();
    let opening = tokio::spawn(async move {
        let connect = opening.options().after_connect(|_, _| {
            Box::pin(async {
                std::future::pending::<()>().await;
                Ok(())
            })
        });
        opening.connect_with::<sqlx::Postgres>(connect).await
    });
    let text = opening.await.expect("no panic").expect_err("no answer");
    let text = text.to_string();
    assert!(text.contains("acquire timeout (3s)"), "{text}");
    assert!(text.contains("raise acquire_timeout"), "{text}");
    assert!(!text.contains("connect timeout"), "{text}");
}

/// Opens a pool of ten on a line on which each connection takes more than the second after which a
/// wait is reported, and answers it with what the crate has said.
async fn over_a_slow_line(settings: PoolSettings) -> Option<(PgPool, Vec<String>)> {
    let test = postgres_database().await?;
    let proxy = Proxy::start(&test.url);
    proxy.delay(Duration::from_millis(400));
    let settings = settings
        .acquire_timeout(LONG)
        .connect_timeout(LONG)
        .url(&proxy.url(&test.url))
        .expect("a URL");
    let said = Capture::<String>::default();
    let monitor = Monitor::new(Config::default());
    let sink = said.clone();
    monitor.add_sink(move |finding: &Finding| sink.push(finding.to_string()));
    let options = settings.options().monitor(&monitor);
    let pool = settings.connect_with(options).await.expect("a pool");
    // What goes on behind it is seen too.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Some((pool, said.all()))
}

#[tokio::test]
async fn a_slow_warm_up_is_nothing_to_report() {
    let warm = PoolSettings::default().min_connections(4).warm_up(true);
    let Some((pool, said)) = over_a_slow_line(warm).await else {
        return;
    };
    assert_eq!(pool.size(), 4);
    assert!(said.is_empty(), "{said:?}");
}

#[tokio::test]
async fn slow_connections_that_are_opened_behind_the_start_are_nothing_to_report() {
    let behind = PoolSettings::default().min_connections(4);
    let Some((_pool, said)) = over_a_slow_line(behind).await else {
        return;
    };
    assert!(said.is_empty(), "{said:?}");
}

#[tokio::test]
async fn a_pool_that_is_open_has_a_connection_as_sqlxs_has() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let settings = PoolSettings::default().url(&test.url).expect("a URL");
    let pool: PgPool = open(&settings).await.expect("a pool");
    assert_eq!((pool.size(), pool.num_idle()), (1, 1));
    assert!(pool.try_acquire().is_some());
}

#[tokio::test]
async fn without_a_url_the_variable_is_named() {
    let error = open::<sqlx::Postgres>(&PoolSettings::default())
        .await
        .expect_err("no URL");
    assert!(error.to_string().starts_with("DATABASE_URL="), "{error}");
}
