//! From settings to what sqlx makes a pool of.
//!
//! Responsible for what each setting means to sqlx and to the server. Not responsible for the settings
//! themselves, nor for the start: see `start`.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Database, Executor};

use super::ageing::Ageing;
use super::link::Family;
use super::residue::{Residue, check_variable};
use super::settings::{Key, PoolSettings};
use super::start;
use crate::{ConfigError, PoolOptions};

pub(super) type Options<DB> = <<DB as Database>::Connection as Connection>::Options;

/// Whole seconds, and never none.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs_f64().ceil().max(1.0) as u64
}

impl PoolSettings {
    /// The options of a pool with these settings, for a change or two by hand before
    /// [`connect_with`](Self::connect_with). They use all three hooks: setting one of them replaces
    /// ours (`after_connect`: the server's time limits on MariaDB and SQLite; `before_acquire` and
    /// `after_release`: the jitter of the lifetime; `after_release`: the tenant that was left behind).
    pub fn options<DB: Database>(&self) -> PoolOptions<DB>
    where
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    {
        let mut options = PoolOptions::<DB>::new()
            .max_connections(self.max)
            .overflow(self.overflow)
            .min_connections(self.min)
            .acquire_timeout(self.acquire)
            .idle_timeout(self.get_idle_timeout())
            .max_lifetime(self.get_max_lifetime())
            .test_before_acquire(self.test)
            .prepared_statements(self.prepared);
        if let Some(service) = &self.service {
            options = options.name(service);
        }
        let session = self.session();
        options = options.after_connect(move |conn, _| {
            let sql = session.clone().map(AssertSqlSafe);
            Box::pin(async move {
                if let Some(sql) = sql {
                    sqlx::raw_sql(sql).execute(conn).await?;
                }
                start::opened();
                Ok(())
            })
        });
        if let Some(bypass) = self.alive {
            options = options.alive_bypass(bypass);
        }
        let ageing = self.get_max_lifetime();
        let ageing = ageing.map(|time| Arc::new(Ageing::new(time, self.get_lifetime_jitter())));
        if let Some(ageing) = ageing.clone() {
            options = options.before_acquire(move |_, meta| {
                Box::pin(std::future::ready(Ok(!ageing.is_over(meta.age))))
            });
        }
        let residue = self.residue().map(Arc::new);
        if ageing.is_some() || residue.is_some() {
            options = options.after_release(move |conn, meta| {
                let is_over = ageing
                    .as_ref()
                    .is_some_and(|ageing| ageing.is_over(meta.age));
                match residue.clone() {
                    Some(residue) if !is_over => Box::pin(async move {
                        // One that cannot be reset is closed.
                        residue.reset::<DB>(conn).await.map(|()| true)
                    }),
                    _ => Box::pin(std::future::ready(Ok(!is_over))),
                }
            });
        }
        options
    }

    /// What is looked for on each connection that comes back.
    fn residue(&self) -> Option<Residue> {
        // A name that cannot be written is an error of `check`, before there is a pool.
        let variable = self.tenant.as_deref()?;
        check_variable("tenant_variable", variable).ok()?;
        let pool = self.service.as_deref().unwrap_or("PostgreSQL");
        Some(Residue::of(pool.to_string(), variable))
    }

    /// What is said to the server in each new session, where its URL cannot say it.
    pub(super) fn session(&self) -> Option<String> {
        match self.url.as_ref()?.family() {
            Family::MySql => {
                // A first one for all, since the others may be comments to this server: MariaDB reads
                // `M!`, MySQL versions that MariaDB never had.
                let mut set = "SET @leaktrace = 1".to_string();
                if let Some(lock) = self.lock {
                    let seconds = whole_seconds(lock);
                    set += &format!(", SESSION innodb_lock_wait_timeout = {seconds}");
                }
                if let Some(statement) = self.statement {
                    let (seconds, millis) = (statement.as_secs_f64(), statement.as_millis());
                    set += &format!("/*M! , SESSION max_statement_time = {seconds:.3} */");
                    set += &format!("/*!80000 , SESSION max_execution_time = {millis} */");
                }
                if let Some(idle) = self.idle_in_transaction {
                    let seconds = whole_seconds(idle);
                    set += &format!("/*M! , SESSION idle_transaction_timeout = {seconds} */");
                }
                let any = self.lock.or(self.statement).or(self.idle_in_transaction);
                any.map(|_| set)
            }
            Family::Sqlite => self
                .lock
                .map(|lock| format!("PRAGMA busy_timeout = {}", lock.as_millis())),
            Family::Postgres => None,
        }
    }

    /// What sqlx connects with: the URL, its password, TLS, and on PostgreSQL the time limits of the
    /// server as start-up `options`, which poolers may refuse.
    ///
    /// # Errors
    /// When a setting is missing, wrong, or of another database.
    pub fn connect_options<DB: Database>(&self) -> Result<Options<DB>, ConfigError> {
        self.check()?;
        let mut link = self.link()?;
        let schemes = DB::URL_SCHEMES;
        if !schemes.is_empty() && !schemes.contains(&link.url().scheme()) {
            let allowed = format!("{}://…, for {}", schemes.join("://… or "), DB::NAME);
            let url = link.to_string();
            return Err(ConfigError::contradiction(
                self.origin(Key::Url),
                &url,
                allowed,
            ));
        }
        let unknown = link.take_unknown();
        if unknown > 0 {
            tracing::warn!(
                target: "leaktrace::kit",
                "{}: {unknown} of its parameters are none of sqlx's and are left out",
                self.origin(Key::Url),
            );
        }
        self.tls.apply(&mut link)?;
        if link.family() == Family::Postgres {
            let limits = [
                ("statement_timeout", self.statement),
                (
                    "idle_in_transaction_session_timeout",
                    self.idle_in_transaction,
                ),
                ("lock_timeout", self.lock),
            ];
            for (name, limit) in limits {
                if let Some(limit) = limit {
                    link.add(
                        &format!("options[{name}]"),
                        &limit.as_millis().max(1).to_string(),
                    );
                }
            }
            if let Some(service) = &self.service
                && link.parameter(&["application_name"]).is_none()
            {
                link.add("application_name", service);
            }
        }
        Options::<DB>::from_url(link.url()).map_err(|error| {
            let why = link.without_secrets(&error.to_string());
            let allowed = format!("a URL that sqlx reads ({why})");
            ConfigError::new(self.origin(Key::Url), &link.to_string(), allowed)
        })
    }
}
