//! What can be set, from code or from the environment.
//!
//! Responsible for [`Config`] and its defaults; the one table [`VARIABLES`] ties each environment
//! variable to its default, its parser and its sentence. Not responsible for changing settings while
//! running: the monitor does that.

mod choices;
mod variables;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub use self::choices::{Detail, Threshold, Unwinder};
pub use self::variables::{VARIABLES, Variable};

/// The settings of a [`Monitor`](crate::Monitor).
///
/// ```
/// use leaktrace::{Config, Detail};
/// use std::time::Duration;
///
/// let config = Config::default()
///     .detail(Detail::Backtrace)
///     .threshold(Duration::from_millis(500));
/// assert_eq!(config.get_detail(), Detail::Backtrace);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    detail: Detail,
    threshold: Threshold,
    idle_in_transaction: Option<Duration>,
    wait: Duration,
    escalate: Option<Duration>,
    report_interval: Duration,
    grace: Duration,
    strict: bool,
    witness: bool,
    unwinder: Unwinder,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            detail: Detail::Location,
            threshold: Threshold::Auto,
            idle_in_transaction: Some(Duration::from_secs(5)),
            wait: Duration::from_secs(1),
            escalate: Some(Duration::from_secs(600)),
            report_interval: Duration::from_secs(60),
            grace: Duration::from_secs(1),
            strict: false,
            witness: true,
            unwinder: Unwinder::Auto,
        }
    }
}

impl Config {
    /// Reads the settings from the environment of this process.
    ///
    /// # Errors
    /// The first variable whose value cannot be read: which, its value, and what is allowed.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(from_environment)
    }

    /// Reads the settings from any place that maps names to values. An empty value is an unset one.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    ///
    /// ```
    /// use leaktrace::{Config, Detail};
    ///
    /// let config = Config::from_lookup(|name| {
    ///     (name == "DEBUG_DB_LEAKS").then(|| "true".to_string())
    /// })?;
    /// assert_eq!(config.get_detail(), Detail::Backtrace);
    ///
    /// let error = Config::from_lookup(|name| {
    ///     (name == "DB_LEAK_THRESHOLD").then(|| "soon".to_string())
    /// })
    /// .unwrap_err();
    /// assert_eq!(error.variable(), "DB_LEAK_THRESHOLD");
    /// # Ok::<(), leaktrace::ConfigError>(())
    /// ```
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut first_error = None;
        config.read(lookup, |error| {
            first_error.get_or_insert(error);
        });
        first_error.map_or(Ok(config), Err)
    }

    /// Reads what can be read and hands each mistake to `wrong`; its variable keeps its default.
    pub(crate) fn read(
        &mut self,
        lookup: impl Fn(&str) -> Option<String>,
        mut wrong: impl FnMut(ConfigError),
    ) {
        for variable in VARIABLES {
            let Some(value) = lookup(variable.name) else {
                continue;
            };
            let value = value.trim();
            if !value.is_empty() && (variable.set)(self, value).is_none() {
                wrong(ConfigError::new(variable.name, value, variable.values));
            }
        }
    }

    /// Sets how much is recorded. Default: [`Detail::Location`].
    pub fn detail(mut self, detail: Detail) -> Self {
        self.detail = detail;
        self
    }

    /// Sets the hold time beyond which a holder is overdue. Default: [`Threshold::Auto`].
    pub fn threshold(mut self, threshold: impl Into<Threshold>) -> Self {
        self.threshold = threshold.into();
        self
    }

    /// Sets how long a transaction may be known to be idle; `None` switches the finding off.
    /// Default: 5 s, and never above the threshold.
    pub fn idle_in_transaction(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.idle_in_transaction = limit.into();
        self
    }

    /// Sets how long an acquire may wait before the pool counts as exhausted. Default: 1 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets for how long an exhaustion at [`Detail::Location`] raises the detail to
    /// [`Detail::Backtrace`]; `None` leaves it. Default: 10 min.
    pub fn escalate(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.escalate = time.into();
        self
    }

    /// Sets the least time between two reports of one group. Default: 60 s.
    pub fn report_interval(mut self, interval: Duration) -> Self {
        self.report_interval = interval;
        self
    }

    /// Sets how long after the end of its request a holder may stay out. Default: 1 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Makes mistakes into errors: a nested checkout, a commit that saved nothing. For tests.
    /// Default: false.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets whether the database server may be asked, over a connection beside the pool, what it knows
    /// of a holder that is about to be reported. Default: true.
    ///
    /// # Cost
    /// At most one connection per pool in 2 s, for less than a second, and only when something new
    /// is about to be said; two the first time. See `docs/guide.md`.
    pub fn witness(mut self, witness: bool) -> Self {
        self.witness = witness;
        self
    }

    /// Sets how stacks are walked. Default: [`Unwinder::Auto`].
    pub fn unwinder(mut self, unwinder: Unwinder) -> Self {
        self.unwinder = unwinder;
        self
    }

    /// How much is recorded.
    pub fn get_detail(&self) -> Detail {
        self.detail
    }

    /// The hold time beyond which a holder is overdue.
    pub fn get_threshold(&self) -> Threshold {
        self.threshold
    }

    /// How long a transaction may be known to be idle.
    pub fn get_idle_in_transaction(&self) -> Option<Duration> {
        self.idle_in_transaction
    }

    /// How long an acquire may wait before the pool counts as exhausted.
    pub fn get_wait(&self) -> Duration {
        self.wait
    }

    /// For how long an exhaustion raises the detail.
    pub fn get_escalate(&self) -> Option<Duration> {
        self.escalate
    }

    /// The least time between two reports of one group.
    pub fn get_report_interval(&self) -> Duration {
        self.report_interval
    }

    /// How long after the end of its request a holder may stay out.
    pub fn get_grace(&self) -> Duration {
        self.grace
    }

    /// Whether the server may be asked about holders.
    pub fn get_witness(&self) -> bool {
        self.witness
    }

    /// Whether mistakes are errors.
    pub fn get_strict(&self) -> bool {
        self.strict
    }

    /// How stacks are walked.
    pub fn get_unwinder(&self) -> Unwinder {
        self.unwinder
    }
}

/// The value of a variable. One that is no text is shown as well as it can be, so that it is not
/// taken for an unset one.
pub(crate) fn from_environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// A setting that cannot be read or used: which, its value, and what is allowed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?} cannot be {verb}; allowed: {allowed}")]
pub struct ConfigError {
    variable: Cow<'static, str>,
    value: String,
    allowed: Cow<'static, str>,
    verb: &'static str,
}

impl fmt::Debug for ConfigError {
    /// As `Display`: a `main` that returns it prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ConfigError {
    /// A value that cannot be read, also of a setting of your own. It is shown: no secrets.
    ///
    /// ```
    /// let error = leaktrace::ConfigError::new("PORT", "http", "a number up to 65535");
    /// assert_eq!(
    ///     error.to_string(),
    ///     r#"PORT="http" cannot be read; allowed: a number up to 65535"#
    /// );
    /// ```
    pub fn new(
        variable: impl Into<Cow<'static, str>>,
        value: &str,
        allowed: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            variable: variable.into(),
            // A value pasted into the wrong variable may be long.
            value: value.chars().take(100).collect(),
            allowed: allowed.into(),
            verb: "read",
        }
    }

    /// A value that can be read and contradicts another setting; `allowed` names that one.
    pub fn contradiction(
        variable: impl Into<Cow<'static, str>>,
        value: &str,
        allowed: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            verb: "used",
            ..Self::new(variable, value, allowed)
        }
    }

    /// The variable or setting that is wrong.
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// The value that cannot be read or used.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What it may be set to.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Result<Config, ConfigError> {
        Config::from_lookup(|asked| (asked == name).then(|| value.to_string()))
    }

    #[test]
    fn the_default_in_the_table_is_the_default_of_the_config() {
        for variable in VARIABLES {
            assert_eq!(
                with(variable.name, variable.default),
                Ok(Config::default()),
                "{}",
                variable.name
            );
            assert_eq!(with(variable.name, " "), Ok(Config::default()));
        }
    }

    #[test]
    fn every_spelling_of_the_detail_is_read_in_any_case() {
        for (value, detail) in [
            ("TRUE", Detail::Backtrace),
            ("1", Detail::Backtrace),
            ("On", Detail::Backtrace),
            ("yes", Detail::Backtrace),
            ("backtrace", Detail::Backtrace),
            ("Location", Detail::Location),
            ("false", Detail::Off),
            ("0", Detail::Off),
            ("off", Detail::Off),
            ("No", Detail::Off),
        ] {
            assert_eq!(
                with("DEBUG_DB_LEAKS", value).map(|c| c.detail),
                Ok(detail),
                "{value}"
            );
        }
        for detail in Detail::ALL {
            assert_eq!(detail.to_string().parse(), Ok(detail));
            assert_eq!(Detail::from_index(detail as u8), detail);
        }
    }

    #[test]
    fn the_unwinder_is_read_in_any_case() {
        let read = |value| with("DB_LEAK_UNWINDER", value).map(|c| c.unwinder);
        assert_eq!(read("Portable"), Ok(Unwinder::Portable));
        assert_eq!(read("AUTO"), Ok(Unwinder::Auto));
        for unwinder in [Unwinder::Auto, Unwinder::Portable] {
            assert_eq!(unwinder.to_string().parse(), Ok(unwinder));
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_names_the_variable_the_value_and_what_is_allowed() {
        for variable in VARIABLES {
            let error = with(variable.name, "perhaps").expect_err(variable.name);
            let text = error.to_string();
            assert!(text.contains(variable.name), "{text}");
            assert!(text.contains("perhaps"), "{text}");
            assert!(text.contains(variable.values), "{text}");
        }
        assert!(with("DB_LEAK_THRESHOLD", "0s").is_err());
    }

    #[test]
    fn the_automatic_threshold_is_half_of_the_acquire_timeout_within_bounds() {
        let auto = |seconds| {
            Threshold::Auto
                .for_pool(Duration::from_secs(seconds))
                .as_secs()
        };
        assert_eq!((auto(30), auto(8), auto(1)), (10, 4, 1));
    }
}
