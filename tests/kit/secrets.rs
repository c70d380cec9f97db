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

/// Something that no other text contains, with characters that URLs treat in a special way.
fn password() -> impl Strategy<Value = String> {
    "zq[a-z0-9]{6}[!$'()*,;:@&=+?#/%<> \"]{0,3}[a-z0-9]{0,4}"
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_shows_a_password(
        password in password(),
        scheme in prop::sample::select(vec!["postgres", "postgresql", "mysql", "mariadb", "sqlite", "mssql"]),
        place in 0_usize..9,
        as_it_is in any::<bool>(),
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
            // What stands before the first special character is enough to look for.
            let core = &password[..8];
            prop_assert!(!said.contains(core), "{url}: {said}");
            prop_assert!(!said.contains(&escaped(core)), "{url}: {said}");
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
