//! The start: tries, pauses, and what no other try can help.

use std::time::{Duration, Instant};

use leaktrace::PgPool;
use leaktrace::kit::{ConnectError, PoolSettings};
use tokio::net::{TcpListener, TcpSocket};

use crate::settle::open;
use crate::support::db::postgres_database;
use crate::support::events::Captured;
use crate::support::{Events, Proxy};

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

#[tokio::test]
async fn without_a_url_the_variable_is_named() {
    let error = open::<sqlx::Postgres>(&PoolSettings::default())
        .await
        .expect_err("no URL");
    assert!(error.to_string().starts_with("DATABASE_URL="), "{error}");
}
