//! No text shows a password, wherever in a URL it stands.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leaktrace::kit::PoolSettings;
use proptest::prelude::*;

use crate::settle::{lookup, open};

/// Every line that anybody logs, sqlx too.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let lines = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || log.clone());
        crate::support::events::hear(lines.finish())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("the log")).into_owned()
    }
}

/// Everything that these settings and their failures say.
async fn everything_said(url: &str, other: (&str, &str), tries: u32) -> String {
    let log = Log::default();
    let _lines = log.start();
    let list = [("DATABASE_URL", url), other];
    let mut said = String::new();
    match PoolSettings::from_lookup(lookup(&list)) {
        Err(error) => said += &format!("{error} {error:?}"),
        Ok(settings) => {
            let settings = settings
                .start_tries(tries)
                .connect_timeout(Duration::from_millis(50));
            said += &format!("{settings} {settings:?}");
            said += &format!("{:?}", settings.clone().max_connections(0).check());
            macro_rules! failures {
                ($($db:ty),*) => {
                    $(match open::<$db>(&settings).await {
                        Ok(pool) => said += &format!("{pool:?} {:?}", pool.monitor().report()),
                        Err(error) => {
                            said += &format!("{error} {error:?}");
                            let mut source = std::error::Error::source(&error);
                            while let Some(error) = source {
                                said += &format!("{error} {error:?}");
                                source = error.source();
                            }
                        }
                    })*
                };
            }
            failures!(sqlx::Postgres, sqlx::MySql, sqlx::Sqlite);
        }
    }
    said + &log.text()
}

/// Something that no other text contains, behind and before characters that URLs treat in a special
/// way. What it begins with may look like the end of a host, of a port or of a name.
fn password() -> impl Strategy<Value = (String, String)> {
    let begin = prop::sample::select(vec![
        "", "8/", "/", "80/", "pa@", "8?", "8#", "8?x=y&", "@", "[", "8/@", "8/x?y#", ":", "p/q@",
    ]);
    let core = "zq[a-z0-9]{6}";
    let end = "[!$'()*,;:@&=+?#/%<>\\[\\]\\\\^`{|}~ \"]{0,3}[a-z0-9]{0,4}";
    (begin, core, end).prop_map(|(begin, core, end)| (format!("{begin}{core}{end}"), core))
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_shows_a_password(
        (password, core) in password(),
        scheme in prop::sample::select(vec!["postgres", "postgresql", "mysql", "mariadb", "sqlite", "mssql"]),
        place in prop_oneof![Just(0), 0_usize..9],
        as_it_is in prop::bool::weighted(0.75),
    ) {
        let text = if as_it_is { password.clone() } else { escaped(&password) };
        // Port 1 refuses.
        let at = "127.0.0.1:1/orders";
        let url = match place {
            0 => format!("{scheme}://app:{text}@{at}"),
            1 => format!("{scheme}://app@{at}?password={text}"),
            2 => format!("{scheme}://app@{at}?pasword={text}"),
            3 => format!("{scheme}://app@{at}?sslmode=disable&{text}"),
            4 => format!("{scheme}://app@{at}?options=-c%20my.secret%3D{text}"),
            5 => format!("{scheme}://app@{at}?sslpassword={text}&sslmode=prefer"),
            6 => format!("{scheme}:app:{text}@{at}"),
            7 => text.clone(),
            _ => format!("{scheme}://app:{text}@{at}?statement-cache-capacity=many"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for other in [("DB_MIN_CONNECTIONS", "0"), ("DB_MIN_CONNECTIONS", "99"), ("DB_WARM_UP", "perhaps")] {
            let said = runtime.block_on(everything_said(&url, other, 1 + u32::from(place == 0)));
            prop_assert!(!said.contains(&core), "{url}: {said}");
            prop_assert!(!said.contains(&escaped(&core)), "{url}: {said}");
        }
    }
}

#[test]
fn what_is_no_secret_is_shown() {
    let url =
        "postgres://app:hunter2@db.internal:5433/orders?sslmode=require&password=hunter2&x=hunter2";
    let settings = PoolSettings::default().url(url).expect("a URL").to_string();
    let shown = "postgres://app:***@db.internal:5433/orders?sslmode=require&password=***&***";
    assert!(settings.starts_with(shown), "{settings}");
}

/// What is misread without being a mistake of form: `u` would be the host and 8 its port.
#[test]
fn a_password_with_a_sign_that_urls_end_at_is_refused_with_the_sign_and_without_the_password() {
    for (url, sign, code) in [
        (
            "postgres://u:8/topsecret+pw=@db.internal/orders",
            "`/`",
            "%2F",
        ),
        ("postgres://u:/topsecretpw@h:5432/d", "`/`", "%2F"),
        ("mysql://u:pa@topsecretpw/x@h:5432/d", "`/`", "%2F"),
        ("postgres://u:topsecret/x@h", "`/`", "%2F"),
        ("postgresql://u:8?topsecret@h/d", "`?`", "%3F"),
        ("postgres://u:8?topsecret=x@h/d", "`?`", "%3F"),
        ("mariadb://u:8#topsecret@h/d", "`#`", "%23"),
        ("postgres://u@h/d?password=topsecret#more", "`#`", "%23"),
    ] {
        let error = PoolSettings::default().url(url).expect_err(url);
        let text = format!("{error} {error:?}");
        assert!(text.contains(sign) && text.contains(code), "{url}: {text}");
        for part in ["topsecret", "pa@", "u:8", ":8", "db.internal"] {
            assert!(!text.contains(part), "{url}: {text}");
        }
    }
    // The twins: written as it should be, or with signs that end nothing.
    for (url, shown) in [
        (
            "postgres://u:8%2Ftop%3F%23@h:1/d",
            "postgres://u:***@h:1/d ",
        ),
        ("postgres://u:p@ss:w@rd@h:1/d", "postgres://u:***@h:1/d "),
        (
            "postgres://h/d?user=me@here",
            "postgres://h/d?user=me@here ",
        ),
        (
            "postgres://u@h/d?password=p@ss/w?rd",
            "postgres://u@h/d?password=*** ",
        ),
        ("postgres://u@h/at%40home", "postgres://u@h/at%40home "),
        (
            "mysql://u@h/d?socket=/run/me@home",
            "mysql://u@h/d?socket=/run/me@home ",
        ),
    ] {
        let settings = PoolSettings::default().url(url).expect(url).to_string();
        assert!(settings.starts_with(shown), "{settings}");
    }
}

#[test]
fn a_url_in_the_wrong_variable_is_not_shown() {
    for variable in leaktrace::kit::VARIABLES {
        let name = format!("DB_{}", variable.name);
        let list = [(&*name, "postgres://u:topsecret/x@h/d")];
        let error = PoolSettings::from_lookup(lookup(&list)).expect_err(&name);
        assert!(!error.to_string().contains("topsecret"), "{error}");
    }
}
