//! Settings from a list of variables, and pools of them with a monitor of their own.

use leaktrace::kit::{ConnectError, PoolSettings};
use leaktrace::{Config, ConfigError, Monitor, Pool};
use sqlx::{Database, Executor, PgConnection};

/// A lookup in a list.
pub(crate) fn lookup(list: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let list: Vec<(String, String)> = list
        .iter()
        .map(|(name, value)| ((*name).to_string(), (*value).to_string()))
        .collect();
    move |asked| {
        let found = list.iter().find(|(name, _)| name == asked);
        found.map(|(_, value)| value.clone())
    }
}

/// The settings that these variables make.
pub(crate) fn read(list: &[(&str, &str)]) -> Result<PoolSettings, ConfigError> {
    PoolSettings::from_lookup(lookup(list))
}

/// A pool of these settings, with a monitor of its own.
pub(crate) async fn open<DB: Database>(settings: &PoolSettings) -> Result<Pool<DB>, ConnectError>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let monitor = Monitor::new(Config::default());
    settings
        .connect_with(settings.options().monitor(&monitor))
        .await
}

/// What PostgreSQL says of a setting of the session, in its own words.
pub(crate) async fn current_setting(conn: &mut PgConnection, name: &'static str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)")
        .bind(name)
        .fetch_one(conn)
        .await
        .expect("a setting of the server")
}
