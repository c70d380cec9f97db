//! Variables, prefixes and fields reach the server under every name they have.

use std::io::Write;
use std::path::Path;

use leaktrace::kit::{PoolSettings, VARIABLES};
use leaktrace::{ConfigError, PgPool};
use serde_json::json;
use sqlx::Row;

use crate::settle::{current_setting, lookup, open, read};
use crate::support::Events;
use crate::support::db::{postgres_database, sqlite_database};

async fn statement_timeout(settings: PoolSettings) -> String {
    let pool: PgPool = open(&settings).await.expect("a pool");
    let mut conn = pool.acquire().await.expect("a connection");
    current_setting(&mut conn, "statement_timeout").await
}

#[tokio::test]
async fn a_time_is_plain_seconds_or_has_a_unit_under_each_prefix() {
    let Some(test) = postgres_database().await else {
        return;
    };
    for (name, value, server) in [
        ("DB_STATEMENT_TIMEOUT_SECS", "30", "30s"),
        ("DB_STATEMENT_TIMEOUT_SECS", "1.5", "1500ms"),
        ("DATABASE_STATEMENT_TIMEOUT_SECS", "31s", "31s"),
        ("DATABASE_STATEMENT_TIMEOUT_SECS", "250ms", "250ms"),
        ("DB_STATEMENT_TIMEOUT_SECS", "2m", "2min"),
        ("DB_STATEMENT_TIMEOUT_SECS", "off", "0"),
        ("DB_STATEMENT_TIMEOUT_SECS", " ", "0"),
    ] {
        let settings = read(&[("DATABASE_URL", &test.url), (name, value)]).expect(value);
        assert_eq!(statement_timeout(settings).await, server, "{name}={value}");
    }
}

#[tokio::test]
async fn the_prefix_of_a_service_wins_over_both_others() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let list = [
        ("DATABASE_URL", &*test.url),
        ("DATABASE_STATEMENT_TIMEOUT_SECS", "1"),
        ("DB_STATEMENT_TIMEOUT_SECS", "2"),
        ("ORDERS_DB_STATEMENT_TIMEOUT_SECS", "3"),
        ("BILLING_RUN_DATABASE_STATEMENT_TIMEOUT_SECS", "4"),
    ];
    for (service, server) in [
        (Some("orders"), "3s"),
        (Some("billing-run"), "4s"),
        (Some("invoices"), "2s"),
        (None, "2s"),
    ] {
        let settings = match service {
            Some(service) => PoolSettings::default().service(service),
            None => PoolSettings::default(),
        };
        let settings = settings.overridden_by(lookup(&list)).expect("settings");
        assert_eq!(statement_timeout(settings).await, server, "{service:?}");
    }
}

#[tokio::test]
async fn the_name_of_the_service_is_that_of_its_pool_and_of_its_sessions() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let settings = PoolSettings::default().service("orders");
    let settings = settings.url(&test.url).expect("a URL");
    let pool: PgPool = open(&settings).await.expect("a pool");
    assert_eq!(pool.name(), "orders");
    let mut conn = pool.acquire().await.expect("a connection");
    let seen = current_setting(&mut conn, "application_name").await;
    assert_eq!(seen, "orders");
}

#[tokio::test]
async fn a_password_comes_from_a_file_and_from_nowhere_else_then() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let mut url: reqwest::Url = test.url.parse().expect("a URL");
    let password = url.password().expect("a password").to_string();
    let file = std::env::temp_dir().join(format!("{}.password", test.name()));
    std::fs::write(&file, format!("{password}\n")).expect("a file");
    let path = file.to_str().expect("a path");

    let both = read(&[
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_PASSWORD_FILE", path),
    ]);
    let error = both.expect_err("two passwords");
    assert_eq!(error.variable(), "DATABASE_PASSWORD_FILE");
    assert!(error.allowed().contains("DATABASE_URL"), "{error}");

    url.set_password(None).expect("a URL without a password");
    let settings = read(&[
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_PASSWORD_FILE", path),
    ]);
    let pool: PgPool = open(&settings.expect("settings")).await.expect("a pool");
    let row = sqlx::query("SELECT 1")
        .fetch_one(&pool)
        .await
        .expect("a row");
    assert_eq!(row.get::<i32, _>(0), 1);
    std::fs::remove_file(&file).expect("the file");

    let gone = read(&[
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_PASSWORD_FILE", path),
    ]);
    let error = gone.expect_err("no file");
    assert_eq!(error.variable(), "DATABASE_PASSWORD_FILE");
}

/// For a service of its own: who runs the tests may have variables of these names.
fn from_file(path: &Path) -> Result<PoolSettings, ConfigError> {
    let settings = PoolSettings::default().service("names test");
    settings.overridden_by_env_or_file(path)
}

#[tokio::test]
async fn a_file_fills_in_what_the_process_does_not_have_when_asked() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let path = std::env::temp_dir().join(format!("{}.env", test.name()));
    let mut file = std::fs::File::create(&path).expect("a file");
    writeln!(file, "# development\nNAMES_TEST_DB_URL='{}'", test.url).expect("a line");
    writeln!(file, "export NAMES_TEST_DB_STATEMENT_TIMEOUT_SECS=7s").expect("a line");
    drop(file);
    let settings = from_file(&path).expect("settings");
    assert_eq!(statement_timeout(settings).await, "7s");

    std::fs::write(
        &path,
        "NAMES_TEST_DB_URL=postgres://a:hunter2secret@b/c\nwhat is 'this hunter2secret",
    )
    .expect("a file");
    let error = from_file(&path).expect_err("no line");
    assert!(
        !format!("{error} {error:?}").contains("hunter2secret"),
        "{error}"
    );
    std::fs::remove_file(&path).expect("the file");
    from_file(&path).expect_err("no file");
}

#[tokio::test]
async fn a_file_may_have_our_names_or_sqlalchemys() {
    let Some(test) = postgres_database().await else {
        return;
    };
    for (file, sessions, timeout) in [
        (
            json!({ "url": test.url, "max_connections": 3, "max_overflow": 1, "acquire_timeout": "4s" }),
            4,
            "0",
        ),
        (
            json!({ "url": test.url, "pool_size": 2, "max_overflow": 1, "pool_timeout": 4, "pool_recycle": -1,
            "pool_pre_ping": true, "statement_timeout": 9 }),
            3,
            "9s",
        ),
    ] {
        let settings: PoolSettings = serde_json::from_value(file.clone()).expect("settings");
        let pool: PgPool = open(&settings).await.expect("a pool");
        let mut held = Vec::new();
        while let Ok(conn) = pool.acquire().await {
            held.push(conn);
        }
        assert_eq!(held.len(), sessions, "{file}");
        let conn = held.first_mut().expect("one");
        assert_eq!(current_setting(conn, "statement_timeout").await, timeout);
    }
    let typo = serde_json::from_value::<PoolSettings>(json!({ "pool_sise": 2 }));
    assert!(typo.expect_err("a typo").to_string().contains("pool_sise"));
    let wrong = serde_json::from_value::<PoolSettings>(json!({ "pool_size": "many" }));
    let error = wrong.expect_err("no number").to_string();
    assert!(error.contains("pool_size=\"many\""), "{error}");
    let twice = json!({ "pool_size": 2, "max_connections": 3 });
    let twice = serde_json::from_value::<PoolSettings>(twice);
    let error = twice.expect_err("one setting").to_string();
    assert!(
        error.contains("pool_size") && error.contains("max_connections"),
        "{error}"
    );
}

#[test]
fn a_value_that_cannot_be_read_names_the_variable_the_value_and_what_is_allowed() {
    for variable in VARIABLES {
        for prefix in ["DB_", "DATABASE_"] {
            let name = format!("{prefix}{}", variable.name);
            let error = read(&[(&name, "perhaps")]).expect_err(&name);
            assert_eq!(error.variable(), name);
            if variable.name != "URL" {
                assert_eq!(error.value(), "perhaps");
            }
            assert!(!error.allowed().is_empty());
        }
    }
    for (name, value) in [
        ("DB_MAX_CONNECTIONS", "0"),
        ("DB_MAX_CONNECTIONS", "-1"),
        ("DB_MAX_CONNECTIONS", "ten"),
        ("DB_ACQUIRE_TIMEOUT_SECS", "0"),
        ("DB_ACQUIRE_TIMEOUT_SECS", "-5"),
        ("DB_ACQUIRE_TIMEOUT_SECS", "NaN"),
        ("DB_ACQUIRE_TIMEOUT_SECS", "off"),
        ("DB_STATEMENT_TIMEOUT_SECS", "99999999999"),
        ("PGSSLMODE", "maybe"),
        ("DB_LEAK_THRESHOLD", "soon"),
    ] {
        let error = read(&[(name, value)]).expect_err(name);
        assert_eq!((error.variable(), error.value()), (name, value));
    }
}

#[test]
fn a_value_beyond_the_limit_names_the_limit() {
    for (name, value, limit) in [
        ("DB_STATEMENT_TIMEOUT_SECS", "30d", "at most 24days 20h"),
        ("DB_MAX_LIFETIME_SECS", "2600000", "at most 24days 20h"),
        (
            "DB_LOCK_TIMEOUT_SECS",
            "99999999999999999999",
            "at most 24days",
        ),
        ("DB_MAX_CONNECTIONS", "99999999999", "at most 262143"),
        ("DB_MAX_CONNECTIONS", "4294967290", "at most 262143"),
        ("DB_MAX_OVERFLOW", "262144", "at most 262143"),
    ] {
        let error = read(&[(name, value)]).expect_err(name);
        assert_eq!((error.variable(), error.value()), (name, value));
        assert!(error.allowed().contains(limit), "{error}");
    }
    read(&[("DB_STATEMENT_TIMEOUT_SECS", "24d")]).expect("below it");
    read(&[("DB_MAX_CONNECTIONS", "262143")]).expect("the most");
}

#[tokio::test]
async fn a_pool_of_the_most_connections_can_be_made() {
    let test = sqlite_database().await;
    let list = [
        ("DATABASE_URL", &*test.url),
        ("DB_MAX_CONNECTIONS", "262143"),
    ];
    let pool = open::<sqlx::Sqlite>(&read(&list).expect("settings")).await;
    assert_eq!(pool.expect("a pool").size(), 1);
}

/// What is said at WARN while `work` runs.
fn warned(work: impl FnOnce()) -> Vec<String> {
    let events = Events::new();
    let _subscriber = events.here();
    work();
    let lines = events.all().into_iter();
    lines.map(|event| event.message).collect()
}

#[test]
fn a_variable_that_is_nearly_one_of_ours_is_said_with_both_names_and_without_its_value() {
    let file = |name: &str, lines: &str| {
        let name = format!("leaktrace_{name}_{}.env", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, lines).expect("a file");
        let said = warned(|| drop(from_file(&path).expect("settings")));
        std::fs::remove_file(&path).expect("the file");
        said.join("\n")
    };
    let said = file(
        "typos",
        "NAMES_TEST_DB_MAX_CONNECTION=77\nNAMES_TEST_DB_ACQUIRE_TIMEOUT=78\nDB_LEAK_TRESHOLD=79s\n",
    );
    for (name, meant) in [
        (
            "NAMES_TEST_DB_MAX_CONNECTION",
            "NAMES_TEST_DB_MAX_CONNECTIONS",
        ),
        (
            "NAMES_TEST_DB_ACQUIRE_TIMEOUT",
            "NAMES_TEST_DB_ACQUIRE_TIMEOUT_SECS",
        ),
        ("DB_LEAK_TRESHOLD", "DB_LEAK_THRESHOLD"),
    ] {
        let line = format!("{name} is set and nobody reads it: is {meant} meant?");
        assert!(said.contains(&line), "{said}");
    }
    assert!(!said.contains("77") && !said.contains("79"), "{said}");
    // The twin: ours, and what is of others.
    let said = file(
        "others",
        "NAMES_TEST_DB_MAX_CONNECTIONS=7\nNAMES_TEST_DB_HOST=a\nNAMES_TEST_DB_SSL=on\nNAMES_TEST_CACHE=b\n",
    );
    assert!(!said.contains("NAMES_TEST"), "{said}");
}

#[test]
fn a_parameter_that_sqlx_does_not_read_is_named_unless_it_may_be_a_piece_of_a_password() {
    let said = |query: &str| {
        let url = format!("postgres://app@db/orders?{query}");
        let settings = PoolSettings::default().url(&url).expect("a URL");
        let lines = warned(|| drop(settings.connect_options::<sqlx::Postgres>()));
        lines.join("\n")
    };
    for (query, part) in [
        ("sslmod=require", "sslmod (is sslmode meant?)"),
        ("sslmode=prefer&pool_timeout=3", "parameters: pool_timeout"),
        ("pool_timeout=3&foo=secret", "pool_timeout, number 2"),
        ("password=a&secret=b", "parameters: number 2"),
        ("secret", "parameters: number 1"),
    ] {
        let said = said(query);
        assert!(said.contains(part) && !said.contains("secret"), "{said}");
    }
    assert_eq!(said("sslmode=prefer&application_name=x"), "");
}

#[test]
fn settings_show_what_they_will_do() {
    let shown = PoolSettings::default()
        .service("orders")
        .url("postgres://app@db/orders")
        .expect("a URL")
        .min_connections(2)
        .warm_up(true)
        .start_tries(7)
        .alive_bypass(std::time::Duration::from_secs(2))
        .production()
        .to_string();
    for part in [
        "orders: postgres://app@db/orders ",
        "connections 2..10+0",
        "alive bypass 2s",
        "tries 7",
        "warm-up true",
        "TLS require",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn the_default_in_the_table_is_what_counts_when_nothing_is_set() {
    let shown = PoolSettings::default().to_string();
    for variable in VARIABLES {
        let name = format!("DB_{}", variable.name);
        let settings = read(&[(&name, variable.default)]).expect(&name);
        assert_eq!(settings.to_string(), shown, "{name}");
    }
}

#[tokio::test]
async fn a_url_of_another_database_is_refused_by_name() {
    let test = sqlite_database().await;
    let settings = read(&[("DATABASE_URL", &test.url)]).expect("settings");
    let error = open::<sqlx::Postgres>(&settings).await.expect_err("SQLite");
    let text = error.to_string();
    assert!(
        text.contains("DATABASE_URL") && text.contains("postgres://"),
        "{text}"
    );
    let pool = open::<sqlx::Sqlite>(&settings).await.expect("a pool");
    sqlx::query("SELECT 1")
        .execute(&pool)
        .await
        .expect("an answer");
}
