//! Who hears a finding: scoped subscribers, the one that is set later, or stderr with one hint.
//!
//! What only a process of its own can show (the global subscriber, stderr) is played by `child`.

use leaktrace::{Kind, Monitor};
use tracing::Level;

use crate::child::{Role, play};
use crate::ground::*;
use crate::support::{Db, Events, database};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scoped_subscriber_receives_the_finding() {
    let events = Events::new();
    let elsewhere = Events::new();
    let test = database(Db::Sqlite).await.expect("SQLite");
    let monitor = {
        let _here = events.here();
        Monitor::new(silent())
    };
    let pool = leaktrace::SqlitePoolOptions::new()
        .monitor(&monitor)
        .name("orders")
        .connect(&test.url)
        .await
        .expect("a pool");
    let _other = elsewhere.here();
    let mut conn = pool.acquire().await.expect("a connection");
    let taken = line!() - 1;
    let used = line!() + 1;
    let statement = sqlx::query(QUICK).execute(&mut *conn);
    statement.await.expect("a statement");
    aged(&pool, millis(20)).await;
    monitor.set_threshold(millis(10));
    let is = |kind: Kind| {
        move |all: &[crate::support::events::Captured]| {
            let found = all
                .iter()
                .find(|event| event.fields.get("kind").map(String::as_str) == Some(kind.as_str()));
            found.cloned()
        }
    };
    let event = events
        .wait_for("the finding", PATIENCE, is(Kind::HeldTooLong))
        .await;
    assert_eq!(
        (event.level, event.target.as_str()),
        (Level::WARN, "leaktrace")
    );
    let field = |name: &str| event.fields.get(name).cloned().unwrap_or_default();
    assert_eq!(field("pool"), "orders");
    assert_eq!(field("count"), "1");
    assert!(field("id").starts_with('#'));
    assert!(field("site").starts_with(&format!("tests/detection/listeners.rs:{taken}:")));
    assert!(field("last_used").starts_with(&format!("tests/detection/listeners.rs:{used}:")));
    assert!(field("held_ms").parse::<u64>().expect("a number") >= 10);
    assert!(
        field("report").contains("leaktrace: pool \"orders\" 1/10 out"),
        "{}",
        field("report")
    );
    assert_eq!(event.message.lines().count(), 1);
    assert!(
        event.message.contains(&format!("listeners.rs:{taken}:")),
        "{}",
        event.message
    );
    drop(conn);
    let back = events
        .wait_for("its end", PATIENCE, is(Kind::ReturnedLate))
        .await;
    assert_eq!(
        (back.level, back.fields["id"].clone()),
        (Level::INFO, field("id"))
    );
    assert!(
        elsewhere.is_empty(),
        "the place of the monitor counts: {:?}",
        elsewhere.all()
    );
}

#[test]
fn a_subscriber_that_is_set_after_the_monitor_was_made_receives_the_finding() {
    let (out, err) = play(Role::SubscriberComesLater, &[]).output();
    assert!(out.contains("event WARN held_too_long"), "{out}\n{err}");
    assert!(!err.contains("held"), "{err}");
    assert!(!err.contains("no tracing subscriber"), "{err}");
}

#[test]
fn without_a_subscriber_findings_go_to_stderr_with_one_hint() {
    let (_, err) = play(Role::NobodyListens, &[]).output();
    assert_eq!(
        err.matches("held_too_long.md").count(),
        2,
        "two findings: {err}"
    );
    assert_eq!(
        err.matches("leaktrace: pool \"one\": held").count(),
        1,
        "{err}"
    );
    assert_eq!(
        err.matches("leaktrace: pool \"two\": held").count(),
        1,
        "{err}"
    );
    assert_eq!(
        err.matches("add `leaktrace=warn` to the filter").count(),
        1,
        "{err}"
    );
    let hint = err.find("add `leaktrace=warn`");
    assert!(
        hint < err.find("leaktrace: pool \""),
        "the hint comes first: {err}"
    );
}

#[test]
fn a_filter_that_refuses_the_target_counts_as_nobody() {
    let (out, err) = play(Role::FilterRefuses, &[]).output();
    assert!(!out.contains("event"), "{out}");
    assert_eq!(
        err.matches("leaktrace: pool \"one\": held").count(),
        1,
        "{err}"
    );
    assert_eq!(
        err.matches("add `leaktrace=warn` to the filter").count(),
        1,
        "{err}"
    );
}

#[test]
fn a_typo_in_the_environment_is_logged_once_at_error_and_the_service_works() {
    let typos = [("DB_LEAK_THRESHOLD", "soon"), ("DEBUG_DB_LEAKS", "true")];
    let (out, err) = play(Role::Global, &typos).output();
    let wanted = "event ERROR DB_LEAK_THRESHOLD=\"soon\" cannot be read; allowed: a duration";
    assert_eq!(out.matches(wanted).count(), 1, "{out}\n{err}");
    assert_eq!(out.matches("event ERROR").count(), 1, "{out}");
    assert!(
        out.contains("works: detail backtrace, threshold auto, 1 held"),
        "{out}\n{err}"
    );
}

#[test]
fn an_environment_without_typos_is_read_in_silence() {
    let values = [("DB_LEAK_THRESHOLD", "3s"), ("DEBUG_DB_LEAKS", "on")];
    let (out, err) = play(Role::Global, &values).output();
    assert!(!out.contains("event"), "{out}\n{err}");
    assert!(
        out.contains("works: detail backtrace, threshold 3s, 1 held"),
        "{out}\n{err}"
    );
}

#[cfg(unix)]
#[test]
fn a_value_that_is_no_text_is_a_typo_too() {
    use std::os::unix::ffi::OsStrExt;
    let value = std::ffi::OsStr::from_bytes(b"3s\xff");
    let mut child = play(Role::Global, &[]);
    child.command.env("DB_LEAK_THRESHOLD", value);
    let (out, err) = child.output();
    assert_eq!(
        out.matches("event ERROR DB_LEAK_THRESHOLD").count(),
        1,
        "{out}\n{err}"
    );
}
