//! The settings of a pool: defaults, where they come from, and what contradicts what.
//!
//! Responsible for [`PoolSettings`] as a value. Not responsible for connecting with it (`connect`),
//! for sizes (`size`) or for the names of variables and fields (`variables`, `file`).

mod check;
mod file;
mod size;
mod sources;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use self::size::{Sizing, Traffic};
pub use self::variables::{VARIABLES, Variable};
use super::link::Link;
use super::tls::Tls;
use crate::ConfigError;

/// A password that shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    /// Without the line end that editors leave.
    fn new(text: &str) -> Self {
        let text = text.strip_suffix('\n').unwrap_or(text);
        Self(text.strip_suffix('\r').unwrap_or(text).to_string())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A setting, to remember where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Url,
    PasswordFile,
    Max,
    Min,
    Overflow,
    Connect,
    Acquire,
    Idle,
    Lifetime,
    Statement,
    IdleInTransaction,
    Lock,
    Prepared,
    Test,
    Alive,
    Tries,
    WarmUp,
    Threshold,
}

/// The settings of a pool, from the environment, a file or code.
///
/// Shown (`Debug`, `Display`, errors) without passwords. Each default has its reason:
///
/// | Setting | Default | Why |
/// |---|---|---|
/// | connections | at most 10 | what one instance of an ordinary service keeps busy; see `sized_for` |
/// | connect timeout | 5 s | a server that is there answers in milliseconds |
/// | acquire timeout | 10 s | callers have given up by then, and a wait that long is an outage |
/// | idle timeout | 10 min | sessions cost the server memory, reconnecting costs the next caller |
/// | lifetime | 30 min, less up to 5 min | after a failover or a new address all sessions move; not all at once |
/// | test before acquire | on, unless it came back within 0.5 s | a connection that a firewall dropped is found before it is used |
/// | prepared statements | on | planning again costs more than keeping them |
///
/// # Examples
/// ```
/// use leaktrace::kit::PoolSettings;
/// use std::time::Duration;
///
/// let settings = PoolSettings::from_lookup(|name| match name {
///     "DATABASE_URL" => Some("postgres://app:secret@db.internal/orders".into()),
///     "DB_ACQUIRE_TIMEOUT_SECS" => Some("3".into()),
///     "DB_STATEMENT_TIMEOUT_SECS" => Some("1500ms".into()),
///     _ => None,
/// })?;
/// assert_eq!(settings.get_acquire_timeout(), Duration::from_secs(3));
/// assert!(!settings.to_string().contains("secret"));
///
/// let error = PoolSettings::from_lookup(|name| match name {
///     "DB_MIN_CONNECTIONS" => Some("20".into()),
///     _ => None,
/// });
/// assert_eq!(error.unwrap_err().variable(), "DB_MIN_CONNECTIONS");
/// # Ok::<(), leaktrace::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct PoolSettings {
    pub(super) service: Option<String>,
    pub(super) url: Option<Link>,
    password_file: Option<(String, Secret)>,
    pub(super) max: u32,
    pub(super) min: u32,
    pub(super) overflow: u32,
    connect: Option<Duration>,
    pub(super) acquire: Duration,
    /// `None`: what fits the other settings.
    idle: Option<Option<Duration>>,
    lifetime: Option<Option<Duration>>,
    jitter: Option<Duration>,
    pub(super) statement: Option<Duration>,
    pub(super) idle_in_transaction: Option<Duration>,
    pub(super) lock: Option<Duration>,
    pub(super) prepared: bool,
    pub(super) test: bool,
    pub(super) tries: u32,
    pub(super) warm_up: bool,
    pub(super) tls: Tls,
    threshold: Option<Duration>,
    pub(super) tenant: Option<String>,
    pub(super) alive: Option<Duration>,
    /// Under which name a setting was found.
    origins: BTreeMap<Key, String>,
}

const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(10 * 60);
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// As of [`PoolOptions::alive_bypass`](crate::PoolOptions::alive_bypass).
const ALIVE: Duration = Duration::from_millis(500);
const JITTER: Duration = Duration::from_secs(5 * 60);

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            service: None,
            url: None,
            password_file: None,
            max: 10,
            min: 0,
            overflow: 0,
            connect: None,
            acquire: Duration::from_secs(10),
            idle: None,
            lifetime: None,
            jitter: None,
            statement: None,
            idle_in_transaction: None,
            lock: None,
            prepared: true,
            test: true,
            tries: 5,
            warm_up: false,
            tls: Tls::default(),
            threshold: None,
            tenant: None,
            alive: None,
            origins: BTreeMap::new(),
        }
    }
}

impl PoolSettings {
    /// Sets the name of the service: the pool's, the sessions' on PostgreSQL, and the prefix of its
    /// variables. Default: none.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Sets the URL of the database.
    ///
    /// # Errors
    /// When it is none.
    pub fn url(mut self, url: &str) -> Result<Self, ConfigError> {
        self.url = Some(Link::parse("url", url)?);
        Ok(self)
    }

    /// Demands TLS: at least `require`, and `verify-full` where a certificate of an authority is
    /// given. Checked by [`check`](Self::check) and on connecting. Nothing on SQLite, nor on a Unix
    /// socket, where PostgreSQL speaks none and nothing leaves the machine.
    pub fn production(mut self) -> Self {
        self.tls.demanded = true;
        self
    }

    /// Sets when an acquired connection is reported as overdue, to be checked against the acquire
    /// timeout. Default: what `DB_LEAK_THRESHOLD` says.
    pub fn threshold(mut self, threshold: Duration) -> Self {
        self.threshold = Some(threshold);
        self.origins.insert(Key::Threshold, "threshold".into());
        self
    }

    /// Sets the variable of [`TenantPool`](super::TenantPool), such as `app.tenant`, so that a value
    /// which somebody set for a session is found when the connection comes back. It is reset there and
    /// then, and said at WARN. Default: none. PostgreSQL only.
    ///
    /// Concerns every connection of a pool that is made from these settings, however it was used; not
    /// where [`after_release`](crate::PoolOptions::after_release) is replaced by hand, nor behind a
    /// pooler in transaction mode, where the session is not the pool's.
    ///
    /// # Cost
    /// One round trip for each return, in which nobody waits unless the pool is empty.
    pub fn tenant_variable(mut self, variable: &str) -> Self {
        self.tenant = Some(variable.to_string());
        self
    }

    /// Sets within which last part of its lifetime each connection is replaced, each at a moment of
    /// its own. Default: a sixth of the lifetime, at most 5 min.
    pub fn lifetime_jitter(mut self, jitter: Duration) -> Self {
        self.jitter = Some(jitter);
        self
    }

    /// The most connections.
    pub fn get_max_connections(&self) -> u32 {
        self.max
    }

    /// How many connections are kept open.
    pub fn get_min_connections(&self) -> u32 {
        self.min
    }

    /// How many more connections there may be for a while.
    pub fn get_max_overflow(&self) -> u32 {
        self.overflow
    }

    /// How long one try to connect at start-up may take.
    pub fn get_connect_timeout(&self) -> Duration {
        self.connect.unwrap_or_else(|| CONNECT.min(self.acquire))
    }

    /// How long an acquire may take.
    pub fn get_acquire_timeout(&self) -> Duration {
        self.acquire
    }

    fn is_in_memory(&self) -> bool {
        self.url.as_ref().is_some_and(Link::is_in_memory)
    }

    /// After how much idle time a connection is closed; by default never in a database in memory,
    /// which is gone with its last connection.
    pub fn get_idle_timeout(&self) -> Option<Duration> {
        self.idle.unwrap_or_else(|| {
            let most = self.get_max_lifetime().unwrap_or(IDLE);
            (!self.is_in_memory()).then(|| IDLE.min(most))
        })
    }

    /// At which age a connection is replaced; by default never in a database in memory.
    pub fn get_max_lifetime(&self) -> Option<Duration> {
        let default = || (!self.is_in_memory()).then_some(LIFETIME);
        self.lifetime.unwrap_or_else(default)
    }

    /// The last part of its lifetime in which each connection is replaced.
    pub fn get_lifetime_jitter(&self) -> Duration {
        let lifetime = self.get_max_lifetime().unwrap_or_default();
        let jitter = self.jitter.unwrap_or_else(|| JITTER.min(lifetime / 6));
        jitter.min(lifetime)
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $key:ident, |$this:ident, $value:ident| $set:expr;)*) => {
        impl PoolSettings {
            $(
                $(#[$doc])*
                pub fn $name(mut self, $value: $type) -> Self {
                    let $this = &mut self;
                    $set;
                    self.origins.insert(Key::$key, stringify!($name).into());
                    self
                }
            )*
        }
    };
}

setters! {
    /// Sets the most connections. Default: 10.
    max_connections: u32 => Max, |this, value| this.max = value;
    /// Sets how many connections are kept open. Default: 0.
    min_connections: u32 => Min, |this, value| this.min = value;
    /// Sets how many more there may be for a while: a connection that comes back while there are too
    /// many, and nobody waits, is closed. Default: 0.
    max_overflow: u32 => Overflow, |this, value| this.overflow = value;
    /// Sets how long one try to connect at start-up may take. Default: 5 s, or the acquire timeout.
    ///
    /// sqlx has no time limit for connecting: while the service runs, an acquire that has to connect
    /// is bounded by the acquire timeout alone.
    connect_timeout: Duration => Connect, |this, value| this.connect = Some(value);
    /// Sets how long an acquire may take, connecting included. Default: 10 s.
    acquire_timeout: Duration => Acquire, |this, value| this.acquire = value;
    /// Sets after how much idle time a connection is closed. Default: 10 min, or the lifetime.
    idle_timeout: Option<Duration> => Idle, |this, value| this.idle = Some(value);
    /// Sets at which age a connection is replaced. Default: 30 min.
    max_lifetime: Option<Duration> => Lifetime, |this, value| this.lifetime = Some(value);
    /// Sets after which time the server ends a statement. Default: never. Nothing on SQLite; on
    /// MySQL, other than MariaDB, reads only.
    statement_timeout: Option<Duration> => Statement, |this, value| this.statement = value;
    /// Sets after which time the server ends a connection that is idle in a transaction: the one
    /// remedy that works while the process hangs. Default: never. Nothing on MySQL and SQLite; on
    /// MariaDB in whole seconds.
    idle_in_transaction_timeout: Option<Duration> => IdleInTransaction, |this, value| this.idle_in_transaction = value;
    /// Sets how long a statement may wait for a lock. Default: the server's. On MySQL and MariaDB for
    /// rows, in whole seconds; on SQLite its `busy_timeout`.
    lock_timeout: Option<Duration> => Lock, |this, value| this.lock = value;
    /// Sets whether statements are prepared and kept. Default: true. See
    /// [`PoolOptions::prepared_statements`](crate::PoolOptions::prepared_statements).
    prepared_statements: bool => Prepared, |this, value| this.prepared = value;
    /// Sets whether a connection is tested before it is given out. Default: true.
    test_before_acquire: bool => Test, |this, value| this.test = value;
    /// Sets for how long a connection counts as alive after it came back, so that it is not tested
    /// again. Default: 500 ms; zero tests before each acquire. See
    /// [`PoolOptions::alive_bypass`](crate::PoolOptions::alive_bypass).
    alive_bypass: Duration => Alive, |this, value| this.alive = Some(value);
    /// Sets how often it is tried to connect at start-up. Default: 5.
    start_tries: u32 => Tries, |this, value| this.tries = value;
    /// Sets whether the connections that are kept open are there before `connect` answers. Default:
    /// false; then they are opened behind it.
    warm_up: bool => WarmUp, |this, value| this.warm_up = value;
}

impl fmt::Display for PoolSettings {
    /// One line, without passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: Option<Duration>| match time {
            Some(time) => humantime::format_duration(time).to_string(),
            None => "off".to_string(),
        };
        if let Some(service) = &self.service {
            write!(f, "{service}: ")?;
        }
        match &self.url {
            Some(url) => write!(f, "{url}")?,
            None => f.write_str("no URL")?,
        }
        write!(
            f,
            " connections {}..{}+{}, connect {}, acquire {}, idle {}, lifetime {}, statement {}, \
             idle in transaction {}, lock {}, prepared {}, tested {}, alive bypass {}, tries {}, warm-up \
             {}, TLS {}",
            self.min,
            self.max,
            self.overflow,
            time(Some(self.get_connect_timeout())),
            time(Some(self.acquire)),
            time(self.get_idle_timeout()),
            time(self.get_max_lifetime()),
            time(self.statement),
            time(self.idle_in_transaction),
            time(self.lock),
            self.prepared,
            self.test,
            time(Some(self.alive.unwrap_or(ALIVE))),
            self.tries,
            self.warm_up,
            self.tls.said(self.url.as_ref()),
        )
    }
}

impl fmt::Debug for PoolSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolSettings({self})")
    }
}
