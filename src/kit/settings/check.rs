//! What contradicts what.
//!
//! Responsible for settings that can be read and do not go together, and for telling where each came
//! from. Not responsible for values that cannot be read.

use super::variables::{MOST, VARIABLES, prefixes};
use super::{Key, PoolSettings};
use crate::ConfigError;
use crate::kit::link::{Family, Link};
use crate::kit::residue::check_variable;

impl PoolSettings {
    /// Checks what contradicts what. Done by every constructor and by `connect`.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.min > self.max {
            let allowed = format!("at most {} ({})", self.origin(Key::Max), self.max);
            return Err(self.contradiction(Key::Min, &self.min.to_string(), allowed));
        }
        let above_zero = [
            (Key::Max, self.max > 0, "a whole number above zero"),
            (Key::Acquire, !self.acquire.is_zero(), "a time above zero"),
        ];
        for (key, good, allowed) in above_zero {
            if !good {
                return Err(self.contradiction(key, "0", allowed.to_string()));
            }
        }
        for (key, count) in [(Key::Max, self.max), (Key::Overflow, self.overflow)] {
            if count > MOST {
                let allowed = format!("at most {MOST}");
                return Err(self.contradiction(key, &count.to_string(), allowed));
            }
        }
        if self.warm_up && self.min == 0 {
            let allowed = format!(
                "false: {} is 0, so there is nothing to open",
                self.origin(Key::Min)
            );
            return Err(self.contradiction(Key::WarmUp, "true", allowed));
        }
        let lifetime = self.get_max_lifetime();
        let bounds = [
            (
                Key::Connect,
                Some(self.get_connect_timeout()),
                Key::Acquire,
                Some(self.acquire),
            ),
            (Key::Idle, self.get_idle_timeout(), Key::Lifetime, lifetime),
            (Key::Lock, self.lock, Key::Statement, self.statement),
            (
                Key::Threshold,
                self.threshold,
                Key::Acquire,
                Some(self.acquire),
            ),
        ];
        for (key, value, above, most) in bounds {
            if let (Some(value), Some(most)) = (value, most)
                && value > most
            {
                let most = humantime::format_duration(most);
                let allowed = format!("at most {} ({most})", self.origin(above));
                let value = humantime::format_duration(value).to_string();
                return Err(self.contradiction(key, &value, allowed));
            }
        }
        if let (Some(url), Some((file, _))) = (&self.url, &self.password_file)
            && (url.has_password() || url.family() == Family::Sqlite)
        {
            let allowed = format!(
                "a password in one place: {} has one, or needs none",
                self.origin(Key::Url)
            );
            return Err(self.contradiction(Key::PasswordFile, file, allowed));
        }
        if let Some(variable) = &self.tenant {
            check_variable("tenant_variable", variable)?;
            if self
                .url
                .as_ref()
                .is_some_and(|url| url.family() != Family::Postgres)
            {
                let allowed = "PostgreSQL: others have no row-level security";
                return Err(ConfigError::contradiction(
                    "tenant_variable",
                    variable,
                    allowed,
                ));
            }
        }
        match &self.url {
            Some(url) => self.tls.check(url),
            None => Ok(()),
        }
    }

    fn contradiction(&self, key: Key, value: &str, allowed: String) -> ConfigError {
        ConfigError::contradiction(self.origin(key), value, allowed)
    }

    /// Under which name a setting was found, or is found by default.
    pub(in crate::kit) fn origin(&self, key: Key) -> String {
        if let Some(origin) = self.origins.get(&key) {
            return origin.clone();
        }
        let variable = VARIABLES.iter().find(|variable| variable.key == key);
        match variable.map(|variable| variable.name) {
            Some(name @ ("URL" | "PASSWORD_FILE")) => format!("DATABASE_{name}"),
            Some(name) => format!("DB_{name}"),
            None => "DB_LEAK_THRESHOLD".to_string(),
        }
    }

    /// The URL with the password from its file.
    ///
    /// # Errors
    /// When there is no URL, or no place for a password in it.
    pub(in crate::kit) fn link(&self) -> Result<Link, ConfigError> {
        let missing = || {
            let names = prefixes(self.service.as_deref());
            let names: Vec<_> = names.iter().map(|prefix| format!("{prefix}URL")).collect();
            let allowed = format!(
                "{}; looked for in {}",
                VARIABLES[0].values,
                names.join(", ")
            );
            ConfigError::new(self.origin(Key::Url), "", allowed)
        };
        let mut link = self.url.clone().ok_or_else(missing)?;
        if let Some((file, password)) = &self.password_file
            && !link.set_password(password.expose())
        {
            let allowed = "a URL with a host, for a password from a file".to_string();
            return Err(self.contradiction(Key::PasswordFile, file, allowed));
        }
        Ok(link)
    }
}
