//! Other ways to the database of a test: through a PgBouncer, through TLS, on the replica.
//!
//! Responsible for their URLs and for entering the test in the ledger. Starting the servers is
//! `scripts/servers`' work.

use std::io::Write;
use std::sync::Once;

use reqwest::Url;

use super::db::{Db, TestDb, enter, ran_on};

/// The value of a variable that `scripts/servers` sets; says once that it is missing.
fn variable(name: &str, what: &str, said: &Once) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        said.call_once(|| {
            let _ = writeln!(
                std::io::stderr(),
                "skipped: {what} ({name} is not set; scripts/test starts one)"
            );
        });
    }
    value
}

/// The URL of this PostgreSQL database through a PgBouncer in transaction mode, which takes its
/// servers in turn. It refuses start-up `options` and speaks no TLS.
pub(crate) fn through_pgbouncer(test: &TestDb) -> Option<String> {
    static SAID: Once = Once::new();
    assert_eq!(test.db, Db::Postgres);
    let url = variable("LEAKTRACE_TEST_PGBOUNCER_URL", "PgBouncer", &SAID)?;
    let mut url: Url = url.parse().expect("the URL of the PgBouncer");
    url.set_path(test.name());
    url.set_query(Some("sslmode=disable"));
    enter("pgbouncer");
    Some(url.into())
}

/// The URL of this PostgreSQL database on the streaming replica, where it will soon be.
pub(crate) fn on_the_replica(test: &TestDb) -> Option<String> {
    static SAID: Once = Once::new();
    assert_eq!(test.db, Db::Postgres);
    let url = variable("LEAKTRACE_TEST_REPLICA_URL", "a replica", &SAID)?;
    let mut url: Url = url.parse().expect("the URL of the replica");
    url.set_path(test.name());
    enter("replica");
    Some(url.into())
}

/// A way to a PostgreSQL whose certificate is for `localhost` alone, by a private authority.
#[derive(Debug)]
pub(crate) struct TlsDoor {
    /// The file with the certificate of that authority.
    pub(crate) authority: String,
    url: Url,
}

impl TlsDoor {
    /// `None` without such a server.
    pub(crate) fn of(test: &TestDb) -> Option<Self> {
        static SAID: Once = Once::new();
        assert_eq!(test.db, Db::Postgres);
        let authority = variable("LEAKTRACE_TEST_POSTGRES_CA", "PostgreSQL with TLS", &SAID)?;
        let mut url: Url = test.url.parse().expect("the URL of a test database");
        url.set_query(None);
        ran_on(Db::Postgres);
        enter("tls");
        Some(Self { authority, url })
    }

    /// The URL with that host, and nothing said of TLS.
    pub(crate) fn url(&self, host: &str) -> String {
        let mut url = self.url.clone();
        url.set_host(Some(host)).expect("a host");
        url.into()
    }
}
