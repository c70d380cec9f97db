//! `connecting`: no connection can be opened. The server's own words, from one attempt of ours: sqlx
//! swallows them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use leaktrace::{CauseKind, Finding, PgPool, Severity};
use reqwest::Url;
use sqlx::{Connection, Error, MySql, PgConnection, Postgres};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Bench, PATIENCE, assert_names, cause, millis, quick};
use crate::support::db::{mysql_database, postgres_database, sqlite_database};
use crate::support::{Db, Proxy, TestDb};

/// The length, and the number that stands for TLS where a version of the protocol would.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// One acquire that fails; what it fails with, and what is said of it.
async fn failing<DB: sqlx::Database>(bench: &Bench, url: &str) -> (Error, Finding) {
    // Long enough for a busy server to refuse, and for a watchdog that is late to say that it waits.
    let pool = bench.pool_at::<DB>(url, 2, Duration::from_secs(4));
    let error = pool.acquire().await.map(drop).expect_err("nobody is there");
    (error, bench.timed_out().await)
}

#[track_caller]
fn assert_connecting(finding: &Finding, words: &[&str]) {
    let connecting = cause(finding, CauseKind::Connecting);
    let connecting = connecting.unwrap_or_else(|| panic!("{finding}"));
    assert_names(&connecting.detail, words);
    assert_names(&finding.headline, words);
    assert!(cause(finding, CauseKind::Untracked).is_none(), "{finding}");
}

/// The URL of the server with one part changed.
fn changed(url: &str, change: impl FnOnce(&mut Url)) -> String {
    let mut url = Url::parse(url).expect("a URL");
    change(&mut url);
    url.into()
}

#[tokio::test]
async fn a_refused_port_is_said_though_sqlx_says_timed_out() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let proxy = Proxy::start(&db.url);
    proxy.refuse();
    let (error, finding) = failing::<Postgres>(&bench, &proxy.url(&db.url)).await;
    assert!(matches!(error, Error::PoolTimedOut), "{error}");
    assert_connecting(&finding, &["Connection refused"]);
    assert_connecting(&bench.waiting().await, &["Connection refused"]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_asked_once_though_it_is_said_twice() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::new(quick().report_interval(Duration::from_secs(60)));
    let proxy = Proxy::start(&db.url);
    proxy.stall();
    let url = proxy.url(&db.url);
    let began = Instant::now();
    let (error, finding) = failing::<Postgres>(&bench, &url).await;
    assert!(matches!(error, Error::PoolTimedOut), "{error}");
    assert_connecting(
        &finding,
        &["an attempt of ours to connect had no answer within 1.0 s"],
    );
    // The acquire opened one; ours is the one more. On a busy machine the next is due by now.
    let ours = proxy.accepted() - 1;
    let took = began.elapsed();
    assert!(ours <= took.as_secs() / 2 + 1, "{ours} within {took:?}");
}

#[tokio::test]
async fn attempts_keep_their_distance_while_acquires_fail() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let proxy = Proxy::start(&db.url);
    proxy.stall();
    let pool: PgPool = bench.pool_at(&proxy.url(&db.url), 1, millis(500));
    let (began, mut acquires) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(5) {
        assert!(pool.acquire().await.is_err());
        acquires += 1;
    }
    // Each acquire opened one; ours are one in two seconds.
    let ours = proxy.accepted().saturating_sub(acquires);
    let most = began.elapsed().as_secs() / 2 + 1;
    assert!(ours >= 1 && ours <= most, "{ours} of {acquires}");
    assert_connecting(
        &bench.timed_out().await,
        &["an attempt of ours to connect had no answer within 1.0 s"],
    );
    assert_eq!(
        bench.count(Severity::Error),
        1,
        "the same is not said again"
    );
}

#[tokio::test]
async fn a_wrong_password_is_said_in_the_words_of_the_server() {
    for db in [Db::Postgres, Db::MySql] {
        let Some(db) = crate::support::database(db).await else {
            continue;
        };
        let bench = Bench::quick();
        let url = changed(&db.url, |url| {
            url.set_password(Some("wrong")).expect("has a host");
        });
        let words = match db.db {
            Db::Postgres => "password authentication failed",
            _ => "Access denied",
        };
        let (error, finding) = match db.db {
            Db::Postgres => failing::<Postgres>(&bench, &url).await,
            _ => failing::<MySql>(&bench, &url).await,
        };
        assert!(matches!(error, Error::Database(_)), "{error}");
        assert_connecting(&finding, &[words]);
        assert!(!finding.to_string().contains("wrong"), "{finding}");
    }
}

#[tokio::test]
async fn an_unknown_database_is_named() {
    if let Some(db) = postgres_database().await {
        let bench = Bench::quick();
        let url = changed(&db.url, |url| url.set_path("no_such_database"));
        let (_, finding) = failing::<Postgres>(&bench, &url).await;
        assert_connecting(&finding, &["\"no_such_database\" does not exist"]);
    }
    if let Some(db) = mysql_database().await {
        let bench = Bench::quick();
        let url = changed(&db.url, |url| url.set_path("no_such_database"));
        let (_, finding) = failing::<MySql>(&bench, &url).await;
        assert_connecting(&finding, &["no_such_database"]);
    }
}

#[tokio::test]
async fn a_server_with_too_many_clients_is_quoted() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let role = format!("{}_limited", db.name());
    let mut admin = PgConnection::connect(&db.url).await.expect("a server");
    let make = format!("CREATE ROLE {role} LOGIN PASSWORD 'limited' CONNECTION LIMIT 1");
    let run = async |admin: &mut PgConnection, sql: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(admin).await
    };
    run(&mut admin, make).await.expect("a role");
    let url = changed(&db.url, |url| {
        url.set_username(&role).expect("has a host");
        url.set_password(Some("limited")).expect("has a host");
    });
    let the_one = PgConnection::connect(&url).await;
    let bench = Bench::quick();
    let (error, finding) = failing::<Postgres>(&bench, &url).await;
    drop(the_one);
    run(&mut admin, format!("DROP ROLE {role}"))
        .await
        .expect("no role");
    assert!(matches!(error, Error::PoolTimedOut), "{error}");
    assert_connecting(&finding, &["too many connections for role"]);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said() {
    crate::support::ran_on(Db::Postgres);
    let bench = Bench::quick();
    let url = "postgres://somebody@nowhere.invalid/orders";
    let (_, finding) = failing::<Postgres>(&bench, url).await;
    assert_connecting(&finding, &["lookup"]);
}

#[tokio::test]
async fn tls_that_cannot_be_had_is_said() {
    crate::support::ran_on(Db::Postgres);
    // What a PostgreSQL without TLS answers to whoever asks for it.
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let server = server.expect("a port");
    let addr = server.local_addr().expect("bound");
    let asked = tokio::spawn(async move {
        loop {
            let (mut socket, _) = server.accept().await.expect("a client");
            let mut request = [0; 8];
            // One that has left by then has asked for nothing.
            if socket.read_exact(&mut request).await.is_ok() {
                assert_eq!(request, SSL_REQUEST);
                let _ = socket.write_all(b"N").await;
            }
        }
    });
    let bench = Bench::quick();
    let url = format!("postgres://somebody@{addr}/orders?sslmode=require");
    let (_, finding) = failing::<Postgres>(&bench, &url).await;
    assert!(!asked.is_finished(), "everybody asked for TLS");
    assert_connecting(&finding, &["TLS"]);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_said() {
    crate::support::ran_on(Db::Sqlite);
    let bench = Bench::quick();
    let url = "sqlite:///no/such/directory/orders.db";
    let (_, finding) = failing::<sqlx::Sqlite>(&bench, url).await;
    assert_connecting(&finding, &["unable to open database file"]);
}

#[tokio::test]
async fn a_pool_that_is_merely_full_asks_nobody() {
    let Some(db) = postgres_database().await else {
        return;
    };
    // The holder becomes overdue here: about that the server may be asked.
    let bench = Bench::new(quick().witness(false));
    let proxy = Proxy::start(&db.url);
    let raw = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(4));
    // Open before it is watched: about one that takes long to open somebody would be asked.
    let raw = raw.connect(&proxy.url(&db.url)).await.expect("a server");
    let pool = bench.monitor.watch("orders", raw);
    let _held = pool.acquire().await.expect("it is open");
    assert!(pool.acquire().await.is_err());
    bench.timed_out().await;
    assert_eq!(proxy.accepted(), 1);
    bench.never_said(&[CauseKind::Connecting]);
}

#[tokio::test]
async fn a_server_that_answers_slowly_is_no_outage() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::new(quick().wait(millis(50)));
    let proxy = Proxy::start(&db.url);
    // Several round trips: longer than a wait may take, and far below the second that ours may.
    proxy.delay(millis(30));
    let pool: PgPool = bench.pool_at(&proxy.url(&db.url), 1, PATIENCE);
    pool.acquire().await.expect("in time");
    bench.never_said(&[CauseKind::Untracked]);
    for finding in bench.findings.all() {
        // Opening took longer than the limit for a wait; our own attempt came through.
        assert!(!finding.to_string().contains("no answer"), "{finding}");
    }
}

/// Says that somebody waits long before a connection is open, also when the watchdog is late.
fn open_bench() -> Bench {
    Bench::new(quick().wait(millis(50)))
}

/// A pool of five, of which one connection is open before it is watched and given out at once, and
/// every other one takes seconds to open. The server itself answers at once: an attempt of ours has a
/// second for it, also on a busy machine.
async fn slow_to_grow(bench: &Bench, db: &TestDb) -> PgPool {
    let opened = AtomicUsize::new(0);
    let raw = sqlx::postgres::PgPoolOptions::new()
        .max_connections(5)
        .test_before_acquire(false)
        .acquire_timeout(PATIENCE)
        .after_connect(move |_, _| {
            let is_first = opened.fetch_add(1, Ordering::SeqCst) == 0;
            let time = if is_first { 0 } else { 3 };
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(time)).await;
                Ok(())
            })
        })
        .connect_lazy(&db.url)
        .expect("a URL");
    let mut first = raw.acquire().await.expect("a server");
    first.return_to_pool().await;
    drop(first);
    bench.monitor.watch("orders", raw)
}

/// What is said of two who wait while their connections are being opened.
async fn opened_slowly(bench: &Bench, pool: &PgPool) -> Finding {
    let (one, two, finding) = tokio::join!(pool.acquire(), pool.acquire(), bench.waiting());
    one.expect("in time");
    two.expect("in time");
    finding
}

/// In which words depends on whether our own attempt had its answer within its second: on a busy machine
/// it may not.
#[track_caller]
fn is_opening(finding: &Finding) {
    let connecting = cause(finding, CauseKind::Connecting);
    assert!(connecting.is_some(), "{finding}");
}

#[tokio::test]
async fn one_that_works_is_no_cause_while_places_are_left() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = open_bench();
    let pool = slow_to_grow(&bench, &db).await;
    let mut works = pool.acquire().await.expect("it is open");
    let work = async {
        let work = sqlx::query("SELECT pg_sleep(20)").execute(&mut *works);
        let _ = tokio::time::timeout(PATIENCE, work).await;
    };
    let finding = tokio::select! {
        () = work => panic!("the others wait for less"),
        finding = opened_slowly(&bench, &pool) => finding,
    };
    assert_names(&finding.headline, &["1/5 out"]);
    is_opening(&finding);
    bench.never_said(&[CauseKind::Saturated]);
}

#[tokio::test]
async fn one_on_its_way_back_is_no_cause_while_places_are_left() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = open_bench();
    let pool = slow_to_grow(&bench, &db).await;
    // Sent at its first poll.
    let slow = sqlx::raw_sql("SELECT pg_sleep(10)").execute(&pool);
    assert!(tokio::time::timeout(millis(300), slow).await.is_err());
    let finding = opened_slowly(&bench, &pool).await;
    assert_names(&finding.headline, &["0/5 out"]);
    is_opening(&finding);
    bench.never_said(&[CauseKind::Returning]);
}

#[tokio::test]
async fn the_finding_is_said_also_when_the_runtime_ends_before_the_answer() {
    let bench = Bench::quick();
    let db = sqlite_database().await;
    drop(db);
    let thread = std::thread::spawn({
        let monitor = bench.monitor.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                // A port that takes connections and never answers.
                let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
                let addr = silent
                    .as_ref()
                    .expect("a port")
                    .local_addr()
                    .expect("bound");
                let pool = leaktrace::PgPoolOptions::new()
                    .monitor(&monitor)
                    .acquire_timeout(millis(300))
                    .connect_lazy(&format!("postgres://somebody@{addr}/orders"))
                    .expect("a URL");
                assert!(pool.acquire().await.is_err());
            });
        }
    });
    thread.join().expect("no panic");
    bench.timed_out().await;
}

/// The account that somebody opens in an incident knows what the finding knew.
#[tokio::test]
async fn the_report_of_the_moment_knows_it_too() {
    let Some(db) = postgres_database().await else {
        return;
    };
    let bench = Bench::quick();
    let proxy = Proxy::start(&db.url);
    proxy.stall();
    let pool: PgPool = bench.pool_at(&proxy.url(&db.url), 1, PATIENCE);
    let waits = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire().await.map(drop) }
    });
    assert_connecting(&bench.waiting().await, &["no answer within 1.0 s"]);
    let report = bench.monitor.report().to_string();
    assert!(
        report.contains("connecting 1: an attempt of ours"),
        "{report}"
    );
    waits.abort();
}
