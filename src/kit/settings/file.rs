//! Settings in a file of any format that serde reads.
//!
//! Responsible for the names of the fields, SQLAlchemy's among them. Values are read by the table of
//! variables, so that a file and the environment cannot differ. Not responsible for defaults.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::PoolSettings;
use super::variables::VARIABLES;
use crate::ConfigError;

/// A number, a text or a yes, as files write settings.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl Value {
    fn text(self) -> String {
        match self {
            Value::Bool(value) => value.to_string(),
            // SQLAlchemy's sign for never.
            Value::Int(-1) => "off".to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(value) => value,
        }
    }
}

macro_rules! file {
    ($($($field:ident)|+ => $variable:literal,)*) => {
        /// An unknown name is an error: a typo never passes in silence.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            service: Option<String>,
            $($($field: Option<Value>,)+)*
        }

        impl File {
            /// The fields that are set: name, name of the variable, value.
            fn values(self) -> Vec<(&'static str, &'static str, String)> {
                let mut values = Vec::new();
                $($(if let Some(value) = self.$field {
                    values.push((stringify!($field), $variable, value.text()));
                })+)*
                values
            }
        }
    };
}

file! {
    url => "URL",
    password_file => "PASSWORD_FILE",
    max_connections | pool_size => "MAX_CONNECTIONS",
    min_connections => "MIN_CONNECTIONS",
    max_overflow | overflow => "MAX_OVERFLOW",
    connect_timeout | connect_timeout_secs => "CONNECT_TIMEOUT_SECS",
    acquire_timeout | acquire_timeout_secs | pool_timeout => "ACQUIRE_TIMEOUT_SECS",
    idle_timeout | idle_timeout_secs => "IDLE_TIMEOUT_SECS",
    max_lifetime | max_lifetime_secs | pool_recycle => "MAX_LIFETIME_SECS",
    statement_timeout | statement_timeout_secs => "STATEMENT_TIMEOUT_SECS",
    idle_in_transaction_timeout | idle_in_transaction_timeout_secs => "IDLE_IN_TRANSACTION_TIMEOUT_SECS",
    lock_timeout | lock_timeout_secs => "LOCK_TIMEOUT_SECS",
    prepared_statements => "PREPARED_STATEMENTS",
    test_before_acquire | pool_pre_ping => "TEST_BEFORE_ACQUIRE",
    alive_bypass | alive_bypass_secs => "ALIVE_BYPASS_SECS",
    start_tries => "START_TRIES",
    warm_up => "WARM_UP",
}

impl<'de> Deserialize<'de> for PoolSettings {
    /// Reads fields such as `max_connections` or `pool_size`. Errors are those of
    /// [`PoolSettings::from_lookup`].
    fn deserialize<D: Deserializer<'de>>(file: D) -> Result<Self, D::Error> {
        let file = File::deserialize(file)?;
        let mut settings = PoolSettings::default();
        if let Some(service) = &file.service {
            settings = settings.service(service);
        }
        for (field, name, value) in file.values() {
            let variable = VARIABLES.iter().find(|variable| variable.name == name);
            if let Some(variable) = variable {
                if let Some(other) = settings.origins.get(&variable.key) {
                    let allowed = format!("one of the two: {other} is the same setting");
                    let twice = ConfigError::contradiction(field, "…", allowed);
                    return Err(D::Error::custom(twice));
                }
                let applied = variable.apply(&mut settings, field, value.trim());
                applied.map_err(D::Error::custom)?;
            }
        }
        settings.check().map_err(D::Error::custom)?;
        Ok(settings)
    }
}
