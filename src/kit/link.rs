//! The URL of a database, which may carry a password.
//!
//! Responsible for reading it, changing it, and showing it without secrets. Not responsible for what
//! its parts mean: sqlx reads those.

use std::fmt;

#[cfg(feature = "postgres")]
use sqlx::ConnectOptions;
use url::Url;

use crate::ConfigError;

/// A URL that shows itself without its secrets.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Link {
    url: Url,
    family: Family,
}

/// Which family of databases a URL leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Postgres,
    MySql,
    Sqlite,
}

impl Family {
    fn named(scheme: &str) -> Option<Self> {
        match scheme {
            "postgres" | "postgresql" => Some(Family::Postgres),
            "mysql" | "mariadb" => Some(Family::MySql),
            "sqlite" => Some(Family::Sqlite),
            _ => None,
        }
    }
}

/// Parameters whose value is no secret. Everything else is hidden: a password may stand under any
/// name that somebody thought of.
const OPEN: &[&str] = &[
    "application_name",
    "cache",
    "charset",
    "collation",
    "dbname",
    "host",
    "hostaddr",
    "immutable",
    "mode",
    "port",
    "socket",
    "sslmode",
    "ssl-mode",
    "statement-cache-capacity",
    "time-zone",
    "timezone",
    "user",
];

/// What sqlx's PostgreSQL driver reads. It logs the value of any other one.
const POSTGRES: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

const HIDDEN: &str = "***";

/// Why the URL of a server may be misread: what stands after `//` ends at the first `/`, `?` or `#`,
/// so that one of these in a password makes its rest a path, and its begin a host and port.
///
/// An `@` behind the end is the sign: there it is written `%40` where it is meant.
fn misread(text: &str) -> Option<&'static str> {
    let (_, rest) = text.split_once("//")?;
    let end = rest.find(['/', '?', '#'])?;
    let (path, query) = match rest[end..].split_once('?') {
        Some((path, query)) => (path, query),
        None => (&rest[end..], ""),
    };
    let is_known = |name: &str| POSTGRES.contains(&name) || OPEN.contains(&name);
    let strays = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_known(name) || name.starts_with("options[") => false,
        _ => pair.contains('@'),
    };
    if rest.contains('#') {
        Some("the password, or what else has it, contains a `#`: percent-encode it (%23)")
    } else if path.contains('@') {
        Some("the password contains a `/`: percent-encode it (%2F); an `@` behind the host is %40")
    } else if query.split('&').any(strays) {
        Some("the password contains a `?`: percent-encode it (%3F); an `@` behind the host is %40")
    } else {
        None
    }
}

/// What may be shown of a value that cannot be read: not the URL of a server, which somebody may have
/// set in the wrong variable.
pub(super) fn shown(value: &str) -> &str {
    match value.contains('@') || value.contains("://") {
        true => HIDDEN,
        false => value,
    }
}

impl Link {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it is none, or is read in another way than it was meant. Its text is not shown: nobody
    /// knows which part of it is a password.
    pub(super) fn parse(variable: &str, text: &str) -> Result<Self, ConfigError> {
        let family = text
            .split_once(':')
            .map(|(scheme, _)| (scheme, Family::named(scheme)));
        let wrong = |why: &str| {
            // Also a scheme that nobody knows may be a piece of a password.
            let shown = match family {
                Some((scheme, Some(_))) => format!("{scheme}:{HIDDEN}"),
                _ => HIDDEN.to_string(),
            };
            let allowed = format!(
                "a URL such as postgres://user@host/database, mysql://… or sqlite://… ({why})"
            );
            ConfigError::new(variable.to_string(), &shown, allowed)
        };
        let Some((_, Some(family))) = family else {
            return Err(wrong("it begins with none of these"));
        };
        if family != Family::Sqlite
            && let Some(why) = misread(text)
        {
            return Err(wrong(why));
        }
        let url: Url = text
            .parse()
            .map_err(|error: url::ParseError| wrong(&error.to_string()))?;
        if family != Family::Sqlite && !url.has_authority() {
            return Err(wrong("there is no // in it"));
        }
        Ok(Self { url, family })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// Whether it is a database of this process alone, which ends with its last connection.
    pub(super) fn is_in_memory(&self) -> bool {
        self.family() == Family::Sqlite
            && (self.url.path().contains(":memory:")
                || self.url.as_str().contains("://:memory:")
                || self.parameter(&["mode"]).as_deref() == Some("memory"))
    }

    pub(super) fn has_password(&self) -> bool {
        self.url.password().is_some() || self.parameter(&["password"]).is_some()
    }

    /// Puts a password in; false where the URL has no place for one.
    pub(super) fn set_password(&mut self, password: &str) -> bool {
        self.url.set_password(Some(password)).is_ok()
    }

    /// The last parameter of one of these names, as sqlx reads it.
    pub(super) fn parameter(&self, names: &[&str]) -> Option<String> {
        let pairs = self.url.query_pairs();
        pairs
            .filter(|(name, _)| names.contains(&&**name))
            .last()
            .map(|(_, value)| value.into_owned())
    }

    /// Adds a parameter.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.url.query_pairs_mut().append_pair(name, value);
    }

    /// Takes out what the driver would log, with its value, as unknown. Answers how many: also a name
    /// may be a piece of a password that nobody escaped.
    pub(super) fn take_unknown(&mut self) -> usize {
        if self.family() != Family::Postgres {
            return 0;
        }
        let is_known = |name: &str| POSTGRES.contains(&name) || name.starts_with("options[");
        let (known, unknown): (Vec<_>, Vec<_>) = self
            .url
            .query_pairs()
            .into_owned()
            .partition(|(name, _)| is_known(name));
        if !unknown.is_empty() {
            self.url.set_query(None);
        }
        if !unknown.is_empty() && !known.is_empty() {
            self.url.query_pairs_mut().extend_pairs(known);
        }
        unknown.len()
    }

    /// A text about this URL, or nothing of it where it shows a part that may be secret.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        let password = self.url().password().unwrap_or_default().to_string();
        let pairs = self.url().query_pairs().into_owned();
        let words = pairs.flat_map(|(name, value)| [name, value]);
        let shows = |secret: String| !secret.is_empty() && text.contains(&secret);
        if words.chain([password]).any(shows) {
            return "one of its parameters is wrong".to_string();
        }
        text.to_string()
    }

    /// The path of the Unix socket that it leads to, if it does.
    pub(super) fn socket(&self) -> Option<String> {
        match self.family {
            Family::MySql => self.parameter(&["socket"]),
            Family::Sqlite => None,
            #[cfg(not(feature = "postgres"))]
            Family::Postgres => None,
            #[cfg(feature = "postgres")]
            Family::Postgres => {
                let server = self.server()?;
                let folder = match server.get_socket() {
                    Some(folder) => folder.to_str()?,
                    None => Some(server.get_host()).filter(|host| host.starts_with('/'))?,
                };
                Some(format!("{folder}/.s.PGSQL.{}", server.get_port()))
            }
        }
    }

    /// Where sqlx goes to, which also depends on `PGHOST` and on what there is.
    ///
    /// It is given no more than it needs for that: it reads the file of passwords where it sees none,
    /// and logs what it does not know.
    #[cfg(feature = "postgres")]
    fn server(&self) -> Option<sqlx::postgres::PgConnectOptions> {
        let says_where = |name: &str| matches!(name, "host" | "hostaddr" | "port");
        let pairs = self.url.query_pairs().into_owned();
        let pairs: Vec<_> = pairs.filter(|(name, _)| says_where(name)).collect();
        let mut url = self.url.clone();
        let mut query = url.query_pairs_mut();
        query
            .clear()
            .extend_pairs(pairs)
            .append_pair("password", "-");
        drop(query);
        sqlx::postgres::PgConnectOptions::from_url(&url).ok()
    }

    /// No file has such a name; the URL of a server with a wrong scheme looks like this.
    fn is_of_a_server_in_disguise(&self) -> bool {
        self.family == Family::Sqlite && self.url.as_str().contains('@')
    }

    /// `host:port`, the path of a socket, or what else tells where it leads.
    pub(super) fn place(&self) -> String {
        if self.is_of_a_server_in_disguise() {
            return self.url.scheme().to_string();
        }
        if let Some(socket) = self.socket() {
            return socket;
        }
        #[cfg(feature = "postgres")]
        if self.family == Family::Postgres
            && let Some(server) = self.server()
        {
            return format!("{}:{}", server.get_host(), server.get_port());
        }
        match (self.url.host_str(), self.url.port()) {
            (Some(host), Some(port)) if !host.is_empty() => format!("{host}:{port}"),
            (Some(host), None) if !host.is_empty() => host.to_string(),
            _ => self.url.scheme().to_string(),
        }
    }
}

impl fmt::Display for Link {
    /// Scheme, user, host, path, and parameters that are no secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.url;
        write!(f, "{}:", url.scheme())?;
        if self.is_of_a_server_in_disguise() {
            return f.write_str(HIDDEN);
        }
        if url.has_authority() {
            f.write_str("//")?;
            if !url.username().is_empty() || url.password().is_some() {
                f.write_str(url.username())?;
                if url.password().is_some() {
                    write!(f, ":{HIDDEN}")?;
                }
                f.write_str("@")?;
            }
            f.write_str(url.host_str().unwrap_or_default())?;
            if let Some(port) = url.port() {
                write!(f, ":{port}")?;
            }
        }
        f.write_str(url.path())?;
        for (at, (name, value)) in url.query_pairs().enumerate() {
            let sign = if at == 0 { '?' } else { '&' };
            if OPEN.contains(&&*name) {
                write!(f, "{sign}{name}={value}")?;
            } else if POSTGRES.contains(&&*name) {
                write!(f, "{sign}{name}={HIDDEN}")?;
            } else {
                write!(f, "{sign}{HIDDEN}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
