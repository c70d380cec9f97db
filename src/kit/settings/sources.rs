//! Settings from the environment.
//!
//! Responsible for where values are looked up, and in which order. Not responsible for their names
//! (`variables`) or for files of settings (`file`).

use std::collections::BTreeMap;
use std::path::Path;

use super::variables::{self, VARIABLES};
use super::{Key, PoolSettings};
use crate::kit::near::meant;
use crate::{Config, ConfigError, Threshold, config};

/// The value of a variable of this process.
fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The names of all variables of this process.
fn names() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())
}

/// The variable that somebody may have meant by a name that is none.
fn meant_by(name: &str, prefixes: &[String]) -> Option<String> {
    let ours = config::VARIABLES.iter().map(|variable| variable.name);
    if let Some(meant) = meant(name, ours.clone()) {
        return Some(meant.to_string());
    }
    let prefix = prefixes
        .iter()
        .find(|prefix| name.starts_with(&***prefix))?;
    let rest = &name[prefix.len()..];
    let known = || VARIABLES.iter().map(|variable| variable.name);
    if known().any(|known| known == rest) || ours.into_iter().any(|ours| ours == name) {
        return None;
    }
    let without_unit = |known: &&str| known.strip_suffix("_SECS") == Some(rest);
    let nearest = known().find(without_unit).or_else(|| meant(rest, known()));
    nearest.map(|nearest| format!("{prefix}{nearest}"))
}

/// Says at WARN which names are none that is read, and nearly one.
fn say_typos(service: Option<&str>, names: impl Iterator<Item = String>) {
    let prefixes = variables::prefixes(service);
    for name in names {
        if let Some(meant) = meant_by(&name, &prefixes) {
            tracing::warn!(
                target: "leaktrace::kit",
                "{name} is set and nobody reads it: is {meant} meant?"
            );
        }
    }
}

type Lines = BTreeMap<String, String>;

/// The lines of a file in the form of `.env`.
fn lines(file: &Path) -> Result<Lines, ConfigError> {
    let shown = file.display().to_string();
    let wrong = |error: dotenvy::Error| {
        // Its own text shows the line, which may be the one with the password.
        let why = match error {
            dotenvy::Error::LineParse(..) => "a line of it is no NAME=value".to_string(),
            other => other.to_string(),
        };
        ConfigError::new(".env", &shown, format!("a file of NAME=value ({why})"))
    };
    let lines = dotenvy::from_path_iter(file).map_err(wrong)?;
    lines.collect::<Result<_, _>>().map_err(wrong)
}

impl PoolSettings {
    /// Reads the [variables](VARIABLES) of this process, with the prefixes `DB_` and `DATABASE_`;
    /// under `DB_` first. One that is not read and whose name is nearly that of another, such as
    /// `DB_MAX_CONNECTION`, is said at WARN.
    ///
    /// # Errors
    /// The first value that cannot be read, or contradicts another: which variable, its value, and
    /// what is allowed.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::default().overridden_by_env()
    }

    /// As [`from_env`](Self::from_env), from any place that maps names to values. An empty value is
    /// an unset one.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::default().overridden_by(lookup)
    }

    /// As [`from_env`](Self::from_env), where `ORDERS_DB_…` and `ORDERS_DATABASE_…` win over the
    /// others for a service `orders`. The pool gets its name.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn for_service(service: &str) -> Result<Self, ConfigError> {
        Self::default().service(service).overridden_by_env()
    }

    /// As [`from_env`](Self::from_env), where the file fills in what the process does not have, in
    /// the form of `.env`.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env), and when the file cannot be read.
    pub fn from_env_or_file(file: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::default().overridden_by_env_or_file(file)
    }

    /// These settings, with what the process has in place of them. Reads the prefixes of the
    /// [service](Self::service), too.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn overridden_by_env(self) -> Result<Self, ConfigError> {
        say_typos(self.service.as_deref(), names());
        self.overridden_by(environment)
    }

    /// These settings, with what the process or else the file has in place of them. Reads the
    /// prefixes of the [service](Self::service), too.
    ///
    /// # Errors
    /// As [`from_env_or_file`](Self::from_env_or_file).
    pub fn overridden_by_env_or_file(self, file: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let lines = lines(file.as_ref())?;
        let both = names().chain(lines.keys().cloned());
        say_typos(self.service.as_deref(), both);
        self.overridden_by(|name| environment(name).or_else(|| lines.get(name).cloned()))
    }

    /// These settings, with what the lookup has in place of them; it cannot be asked for typos. Reads
    /// the prefixes of the [service](Self::service), too.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn overridden_by(
        mut self,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let lookup = |name: &str| {
            let value = lookup(name)?;
            let value = value.trim();
            (!value.is_empty()).then(|| value.to_string())
        };
        let prefixes = variables::prefixes(self.service.as_deref());
        for variable in VARIABLES {
            let found = prefixes.iter().find_map(|prefix| {
                let name = format!("{prefix}{}", variable.name);
                lookup(&name).map(|value| (name, value))
            });
            if let Some((name, value)) = found {
                variable.apply(&mut self, &name, &value)?;
            }
        }
        self.tls.read(lookup)?;
        // Only what says how it fits the other settings; the monitor reads it by itself.
        let threshold = "DB_LEAK_THRESHOLD";
        let config = Config::from_lookup(|name| lookup(name).filter(|_| name == threshold))?;
        if let Threshold::Fixed(fixed) = config.get_threshold() {
            self.threshold = Some(fixed);
            self.origins.insert(Key::Threshold, threshold.into());
        }
        self.check()?;
        Ok(self)
    }
}
