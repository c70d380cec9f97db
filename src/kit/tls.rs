//! What is demanded of TLS, and what is wrong with it.
//!
//! Responsible for modes and for naming faults. Not responsible for TLS itself: sqlx does it, with
//! the feature of sqlx that you choose (`tls-rustls-ring`, `tls-native-tls`, …).

use std::fmt;

use super::link::{Family, Link};
use crate::ConfigError;

/// How much TLS, from least to most, in libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    /// None.
    Disable,
    /// None, unless the server insists. sqlx takes it for [`Disable`](Self::Disable).
    Allow,
    /// If the server can; nobody is told when it cannot.
    Prefer,
    /// Always, with whoever answers.
    Require,
    /// Always, with a server that the authority vouches for.
    VerifyCa,
    /// Always, with the server of that name that the authority vouches for.
    VerifyFull,
}

const MODES: &str = "disable, allow, prefer, require, verify-ca, verify-full";

impl TlsMode {
    fn read(text: &str) -> Option<Self> {
        // MySQL's words stand beside libpq's.
        Some(match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "disable" | "disabled" => TlsMode::Disable,
            "allow" => TlsMode::Allow,
            "prefer" | "preferred" => TlsMode::Prefer,
            "require" | "required" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" | "verify-identity" => TlsMode::VerifyFull,
            _ => return None,
        })
    }

    fn word(self, family: Family) -> &'static str {
        let mysql = family == Family::MySql;
        match self {
            TlsMode::Disable if mysql => "DISABLED",
            TlsMode::Allow | TlsMode::Prefer if mysql => "PREFERRED",
            TlsMode::Require if mysql => "REQUIRED",
            TlsMode::VerifyCa if mysql => "VERIFY_CA",
            TlsMode::VerifyFull if mysql => "VERIFY_IDENTITY",
            TlsMode::Disable => "disable",
            TlsMode::Allow => "allow",
            TlsMode::Prefer => "prefer",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word(Family::Postgres))
    }
}

/// What the environment says of TLS, and whether it is demanded.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    mode: Option<TlsMode>,
    authority: Option<String>,
    pub(super) demanded: bool,
}

const MODE: &[&str] = &["sslmode", "ssl-mode"];
const AUTHORITY: &[&str] = &["sslrootcert", "ssl-root-cert", "ssl-ca", "sslca"];

impl Tls {
    /// Reads libpq's variables.
    ///
    /// # Errors
    /// A mode that there is not.
    pub(super) fn read(
        &mut self,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        if let Some(text) = lookup("PGSSLMODE") {
            let mode = TlsMode::read(&text);
            self.mode = Some(mode.ok_or_else(|| ConfigError::new("PGSSLMODE", &text, MODES))?);
        }
        self.authority = lookup("PGSSLROOTCERT").or(self.authority.take());
        Ok(())
    }

    /// The mode and where it is set. What the URL says wins; libpq's variables are PostgreSQL's.
    fn of(&self, link: &Link) -> Result<(Option<TlsMode>, &'static str), ConfigError> {
        let variable = "sslmode in the URL";
        match link.parameter(MODE) {
            Some(text) => match TlsMode::read(&text) {
                Some(mode) => Ok((Some(mode), variable)),
                None => Err(ConfigError::new(variable, &text, MODES)),
            },
            None if link.family() == Family::Postgres => Ok((self.mode, "PGSSLMODE")),
            None => Ok((None, variable)),
        }
    }

    /// The file of the authority, or its text, and where it is given.
    fn authority(&self, link: &Link) -> Option<(String, &'static str)> {
        if let Some(given) = link.parameter(AUTHORITY) {
            return Some((given, "sslrootcert in the URL"));
        }
        let ours = self.authority.clone();
        let ours = ours.filter(|_| link.family() == Family::Postgres);
        ours.map(|file| (file, "PGSSLROOTCERT"))
    }

    fn least(&self, link: &Link) -> TlsMode {
        match self.authority(link) {
            Some(_) => TlsMode::VerifyFull,
            None => TlsMode::Require,
        }
    }

    /// The mode in words, for who reads the settings.
    pub(super) fn said(&self, link: Option<&Link>) -> String {
        let mode = link.map_or(self.mode, |link| {
            self.of(link).ok().and_then(|(mode, _)| mode)
        });
        match (link, mode) {
            (Some(link), _) if link.family() == Family::Sqlite => "none".to_string(),
            (Some(link), _) if link.socket().is_some() => "none on a socket".to_string(),
            (_, Some(mode)) => mode.to_string(),
            (Some(link), None) if self.demanded => self.least(link).to_string(),
            (None, None) if self.demanded => format!("at least {}", TlsMode::Require),
            _ => TlsMode::Prefer.to_string(),
        }
    }

    /// # Errors
    /// A mode that there is not, or less than is demanded. A Unix socket needs no TLS: what goes
    /// through it never leaves the machine, and libpq does not look at the mode there either.
    pub(super) fn check(&self, link: &Link) -> Result<(), ConfigError> {
        if link.family() == Family::Sqlite {
            return Ok(());
        }
        let (mode, origin) = self.of(link)?;
        if link.socket().is_some() {
            return Ok(());
        }
        let least = self.least(link);
        match mode {
            Some(mode) if self.demanded && mode < least => {
                let why = match least {
                    TlsMode::VerifyFull => "verify-full, in production where an authority is given",
                    _ => "require, verify-ca or verify-full, in production",
                };
                Err(ConfigError::contradiction(origin, &mode.to_string(), why))
            }
            _ => Ok(()),
        }
    }

    /// Writes it into the URL, for sqlx.
    ///
    /// # Errors
    /// As [`check`](Self::check), and when the file of the authority cannot be read, or is none: sqlx
    /// would look for it in each try, and take a file without a certificate for one that trusts nobody.
    pub(super) fn apply(&self, link: &mut Link) -> Result<(), ConfigError> {
        let family = link.family();
        if family == Family::Sqlite {
            return Ok(());
        }
        self.check(link)?;
        if link.socket().is_some() {
            // The server offers none there, and sqlx would insist.
            link.add("ssl-mode", TlsMode::Disable.word(family));
            return Ok(());
        }
        let (mode, _) = self.of(link)?;
        let mode = mode.or_else(|| self.demanded.then(|| self.least(link)));
        let authority = self.authority(link);
        if let Some(mode) = mode {
            // The last one counts.
            link.add("ssl-mode", mode.word(family));
        }
        if let Some((authority, origin)) = authority {
            if !matches!(mode, Some(TlsMode::Disable | TlsMode::Allow)) {
                check_authority(&authority, origin)?;
            }
            link.add("ssl-ca", &authority);
        }
        Ok(())
    }
}

/// # Errors
/// When there is no certificate where the authority's is said to be.
fn check_authority(authority: &str, origin: &'static str) -> Result<(), ConfigError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    // sqlx takes the text itself, too.
    if authority.trim_start().starts_with("-----BEGIN") {
        return Ok(());
    }
    let wrong = |why: String| {
        let allowed = format!("the file with the authority's certificate ({why})");
        ConfigError::new(origin, authority, allowed)
    };
    let file = std::fs::read(authority).map_err(|error| wrong(error.to_string()))?;
    match file.windows(BEGIN.len()).any(|part| part == BEGIN) {
        true => Ok(()),
        false => Err(wrong(
            "there is no certificate in PEM form in it, which begins with -----BEGIN CERTIFICATE-----"
                .to_string(),
        )),
    }
}

/// What is wrong with TLS to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsFault {
    /// The server speaks no TLS.
    NotOffered,
    /// The server's certificate is of another authority.
    WrongAuthority,
    /// The server's certificate is for another name.
    WrongName,
    /// The server takes nobody without TLS, and this connection is without.
    NotUsed,
    /// sqlx was built without TLS.
    NotBuilt,
    /// Something else; the error says what.
    Other,
}

impl TlsFault {
    /// What it means, and what to do about it.
    pub fn explain(self) -> &'static str {
        match self {
            TlsFault::NotOffered => {
                "the server speaks no TLS: switch it on there (PostgreSQL: ssl = on)"
            }
            TlsFault::WrongAuthority => {
                "its certificate is not by the authority that is trusted here: give the right one in \
                 sslrootcert or PGSSLROOTCERT"
            }
            TlsFault::WrongName => {
                "its certificate is for another host name: connect by the name that is in it"
            }
            TlsFault::NotUsed => {
                "the server takes no connection without TLS, and this one has none: set sslmode to \
                 require, or to verify-full with the authority in sslrootcert"
            }
            TlsFault::NotBuilt => {
                "sqlx was built without TLS: switch on one of its features, such as tls-rustls-ring"
            }
            TlsFault::Other => "TLS failed",
        }
    }

    /// Which fault an error of sqlx tells of, if any. TLS libraries have no codes for it: their words
    /// are read, rustls' and OpenSSL's.
    pub(super) fn of(error: &sqlx::Error) -> Option<Self> {
        let (text, is_tls) = match error {
            sqlx::Error::Tls(error) => (error.to_string(), true),
            // rustls' come through the socket.
            sqlx::Error::Io(error) => (error.to_string(), false),
            // PostgreSQL before 14 says `SSL off`; the last is MySQL's and MariaDB's.
            sqlx::Error::Database(error) => {
                let words = ["no encryption", "SSL off", "insecure transport"];
                let refused = words.iter().any(|word| error.message().contains(word));
                return refused.then_some(TlsFault::NotUsed);
            }
            _ => return None,
        };
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if has(&["does not support TLS", "does not support SSL"]) {
            Some(TlsFault::NotOffered)
        } else if has(&["built without TLS"]) {
            Some(TlsFault::NotBuilt)
        } else if has(&[
            "UnknownIssuer",
            "BadSignature",
            "unable to get",
            "self-signed",
            "self signed",
        ]) {
            Some(TlsFault::WrongAuthority)
        } else if has(&[
            "NotValidForName",
            "not valid for name",
            "ostname mismatch",
            "IP address mismatch",
        ]) {
            Some(TlsFault::WrongName)
        } else {
            let other = is_tls || has(&["certificate", "TLS", "tls handshake"]);
            other.then_some(TlsFault::Other)
        }
    }
}
