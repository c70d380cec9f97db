//! A value that somebody set for a session, and that the next borrower would inherit.
//!
//! Responsible for the names of such variables, and for finding and resetting a value on a connection
//! that comes back. Not responsible for tenants: see `tenant`.

use sqlx::{AssertSqlSafe, Database, Error, Executor};

use crate::ConfigError;

const NAMES: &str =
    "a name of your own with a dot in it, of letters, digits and _, such as app.tenant";

/// Checks the name of a variable of one's own, which from then on needs no quotes.
///
/// # Errors
/// When PostgreSQL would not take it, or it is one of PostgreSQL's own.
pub(super) fn check_variable(origin: &'static str, name: &str) -> Result<(), ConfigError> {
    let is_word = |word: &str| {
        let mut chars = word.chars();
        let first = chars.next();
        first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if name.contains('.') && name.split('.').all(is_word) {
        return Ok(());
    }
    Err(ConfigError::new(origin, name, NAMES))
}

/// Finds and resets a variable on connections that come back.
#[derive(Debug)]
pub(super) struct Residue {
    pool: String,
    variable: String,
    /// Resets it where it is set, and answers a row then.
    sql: String,
}

impl Residue {
    /// The name of the variable was checked.
    pub(super) fn of(pool: String, variable: &str) -> Self {
        let sql = format!(
            "SELECT set_config('{variable}', '', false) \
             WHERE current_setting('{variable}', true) <> ''"
        );
        Self {
            pool,
            variable: variable.to_string(),
            sql,
        }
    }

    /// Asks, and resets, in one round trip and without a prepared statement.
    pub(super) async fn reset<DB: Database>(&self, conn: &mut DB::Connection) -> Result<(), Error>
    where
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    {
        let sql = AssertSqlSafe(self.sql.clone());
        if sqlx::raw_sql(sql).fetch_optional(conn).await?.is_some() {
            say_found(&self.pool, &self.variable, "came back");
        }
        Ok(())
    }
}

/// The value is not shown: it names a customer.
pub(super) fn say_found(pool: &str, variable: &str, when: &str) {
    tracing::warn!(
        target: "leaktrace::kit",
        pool,
        variable,
        "pool \"{pool}\": a connection {when} with {variable} set for its session, and it was reset: \
         somebody sent SET, which outlives the transaction; TenantPool::begin and SET LOCAL do not",
    );
}
