//! TLS against a private authority: right, wrong authority, wrong name, none.

use leaktrace::PgPool;
use leaktrace::kit::{ConnectError, PoolSettings, TlsFault};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::settle::{lookup, open, read};
use crate::support::db::{postgres_database, with_parameter};
use crate::support::doors::{TlsDoor, through_pgbouncer};
use crate::support::{Events, TestDb};

async fn door() -> Option<(TestDb, TlsDoor)> {
    let test = postgres_database().await?;
    let door = TlsDoor::of(&test)?;
    Some((test, door))
}

/// Settings for production.
fn production(list: &[(&str, &str)]) -> PoolSettings {
    let settings = PoolSettings::default()
        .production()
        .overridden_by(lookup(list));
    settings.expect("settings")
}

/// Whether the server says that the session is encrypted.
async fn is_encrypted(settings: &PoolSettings) -> Result<bool, ConnectError> {
    let pool: PgPool = open(settings).await?;
    let ssl = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    Ok(ssl.fetch_one(&pool).await.expect("a row"))
}

fn fault(error: &ConnectError) -> Option<TlsFault> {
    match error {
        ConnectError::Tls { fault, .. } => Some(*fault),
        _ => None,
    }
}

#[tokio::test]
async fn the_right_authority_and_name_are_verified_and_encrypted() {
    let Some((_test, door)) = door().await else {
        return;
    };
    let url = door.url("localhost");
    let settings = production(&[("DATABASE_URL", &url), ("PGSSLROOTCERT", &door.authority)]);
    assert!(is_encrypted(&settings).await.expect("a session"));
    // The same in the URL.
    let url = with_parameter(&url, "sslmode", "verify-full");
    let url = with_parameter(&url, "sslrootcert", &door.authority);
    assert!(
        is_encrypted(&production(&[("DATABASE_URL", &url)]))
            .await
            .expect("a session")
    );
}

#[tokio::test]
async fn another_authority_another_name_and_no_tls_are_told_apart() {
    let Some((test, door)) = door().await else {
        return;
    };
    let (right, wrong) = (door.url("localhost"), door.url("127.0.0.1"));
    let another = ("PGSSLMODE", "verify-full");
    let authority = ("PGSSLROOTCERT", &*door.authority);
    let mut cases = vec![
        (
            production(&[("DATABASE_URL", &right), another]),
            TlsFault::WrongAuthority,
        ),
        (
            production(&[("DATABASE_URL", &wrong), authority]),
            TlsFault::WrongName,
        ),
    ];
    if let Some(pooler) = through_pgbouncer(&test) {
        let url = pooler.replace("?sslmode=disable", "");
        cases.push((production(&[("DATABASE_URL", &url)]), TlsFault::NotOffered));
    }
    for (settings, expected) in cases {
        let error = is_encrypted(&settings).await.expect_err("no trust");
        assert_eq!(fault(&error), Some(expected), "{error}");
        assert!(error.to_string().contains(expected.explain()), "{error}");
    }
}

#[tokio::test]
async fn production_without_an_authority_is_encrypted_and_development_takes_what_it_gets() {
    let Some((test, door)) = door().await else {
        return;
    };
    let url = door.url("127.0.0.1");
    assert!(
        is_encrypted(&production(&[("DATABASE_URL", &url)]))
            .await
            .expect("a session")
    );
    let open = PoolSettings::default().url(&test.url).expect("a URL");
    assert!(!is_encrypted(&open).await.expect("a session"));
}

/// The other side of no TLS: the server insists, and the URL says none.
#[tokio::test]
async fn a_server_that_insists_on_tls_tells_so_who_comes_without() {
    let Some((test, door)) = door().await else {
        return;
    };
    let role = format!("{}_tls", test.name());
    let make = format!("CREATE ROLE {role} LOGIN PASSWORD 'word' IN ROLE only_tls");
    let mut conn = PgConnection::connect(&test.url).await.expect("a session");
    let made = sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut conn).await;
    made.expect("a role");
    let with_role = |url: &str| {
        let mut url: reqwest::Url = url.parse().expect("a URL");
        url.set_username(&role).expect("a user");
        url.set_password(Some("word")).expect("a password");
        String::from(url)
    };
    let without = PoolSettings::default().url(&with_role(&test.url));
    let refused = is_encrypted(&without.expect("a URL")).await;
    // The twin: the same role, with TLS.
    let with = production(&[("DATABASE_URL", &with_role(&door.url("127.0.0.1")))]);
    let taken = is_encrypted(&with).await;
    let drop = AssertSqlSafe(format!("DROP ROLE {role}"));
    let dropped = sqlx::raw_sql(drop).execute(&mut conn).await;
    dropped.expect("a role");

    let error = refused.expect_err("no TLS");
    assert_eq!(fault(&error), Some(TlsFault::NotUsed), "{error}");
    assert!(error.to_string().contains("set sslmode"), "{error}");
    assert!(taken.expect("a session"));
}

#[tokio::test]
async fn a_file_without_the_authority_is_named_at_once_with_its_variable() {
    let events = Events::new();
    let _subscriber = events.here();
    let file = std::env::temp_dir().join(format!("leaktrace_{}.crt", std::process::id()));
    std::fs::write(&file, "no certificate").expect("a file");
    let file = file.to_str().expect("a path");
    let missing = "/nowhere/ca.crt";
    let url = "postgres://app@127.0.0.1:1/orders";
    let mut said = Vec::new();
    for path in [missing, file] {
        let in_url = with_parameter(url, "sslrootcert", path);
        let in_url = [("DATABASE_URL", &*in_url)];
        let in_variable = [("DATABASE_URL", url), ("PGSSLROOTCERT", path)];
        for (list, variable) in [
            (&in_url[..], "sslrootcert in the URL"),
            (&in_variable[..], "PGSSLROOTCERT"),
        ] {
            for settings in [production(list), read(list).expect("settings")] {
                let error = is_encrypted(&settings).await.expect_err("no authority");
                let ConnectError::Config(error) = error else {
                    panic!("{error}");
                };
                assert_eq!((error.variable(), error.value()), (variable, path));
                said.push(error.to_string());
            }
        }
    }
    std::fs::remove_file(file).expect("the file");
    assert!(said[0].contains("No such file"), "{said:?}");
    assert!(said[4].contains("BEGIN CERTIFICATE"), "{said:?}");
    // The twin: nobody looks at it where there is no TLS.
    let list = [
        ("DATABASE_URL", url),
        ("PGSSLROOTCERT", missing),
        ("PGSSLMODE", "disable"),
        ("DB_START_TRIES", "1"),
    ];
    let error = is_encrypted(&read(&list).expect("settings")).await;
    let error = error.expect_err("nobody there");
    assert!(matches!(error, ConnectError::Failed { .. }), "{error}");
    let tries = events.all();
    assert!(tries.is_empty(), "{tries:?}");
}

/// The same server, by its socket.
async fn by_socket(test: &TestDb) -> String {
    let mut conn = PgConnection::connect(&test.url).await.expect("a session");
    let folder = sqlx::query_scalar("SELECT current_setting('unix_socket_directories')");
    let folder: String = folder.fetch_one(&mut conn).await.expect("a folder");
    with_parameter(&test.url, "host", &folder).replace("sslmode=disable&", "")
}

#[tokio::test]
async fn a_unix_socket_needs_no_tls_in_production_whatever_the_mode() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let url = by_socket(&test).await;
    for mode in [None, Some("prefer"), Some("verify-full")] {
        let mut list = vec![("DATABASE_URL", &*url)];
        list.extend(mode.map(|mode| ("PGSSLMODE", mode)));
        let settings = production(&list);
        let shown = settings.to_string();
        assert!(shown.ends_with("TLS none on a socket"), "{shown}");
        assert!(!is_encrypted(&settings).await.expect("a session"));
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_named() {
    let url = "postgres://app@localhost:5432/orders?host=/nowhere";
    let list = [("DATABASE_URL", url), ("DB_START_TRIES", "1")];
    for settings in [production(&list), read(&list).expect("settings")] {
        let error = is_encrypted(&settings).await.expect_err("no socket");
        let text = error.to_string();
        assert!(text.starts_with("/nowhere/.s.PGSQL.5432: "), "{text}");
        assert!(!text.contains("TLS"), "{text}");
    }
}

#[test]
fn production_refuses_less() {
    let url = "postgres://app@db.internal/orders";
    for (mode, authority, good) in [
        ("disable", None, false),
        ("allow", None, false),
        ("prefer", None, false),
        ("require", None, true),
        ("verify-ca", None, true),
        ("verify-full", None, true),
        ("require", Some("/ca.crt"), false),
        ("verify-ca", Some("/ca.crt"), false),
        ("verify-full", Some("/ca.crt"), true),
    ] {
        let mut list = vec![("DATABASE_URL", url), ("PGSSLMODE", mode)];
        list.extend(authority.map(|file| ("PGSSLROOTCERT", file)));
        let settings = PoolSettings::default()
            .production()
            .overridden_by(lookup(&list));
        assert_eq!(settings.is_ok(), good, "{mode} {authority:?}");
        if let Err(error) = settings {
            assert_eq!((error.variable(), error.value()), ("PGSSLMODE", mode));
        }
        PoolSettings::default()
            .overridden_by(lookup(&list))
            .expect("not in production");
    }
    let in_url = [("DATABASE_URL", "postgres://app@db/orders?sslmode=prefer")];
    let error = PoolSettings::default()
        .production()
        .overridden_by(lookup(&in_url));
    assert!(
        error
            .expect_err("prefer")
            .to_string()
            .contains("sslmode in the URL")
    );
}
