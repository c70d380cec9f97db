//! How many connections.
//!
//! Responsible for presets and formulas. Not responsible for what the server can take: see budgets.

use std::time::Duration;

use super::{Key, PoolSettings};
use crate::ConfigError;

/// How much a service asks of its database, when nothing was measured yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// Jobs, admin tools, a few requests a second: 5 connections.
    Low,
    /// An ordinary service: 10, and 5 more for a while.
    Medium,
    /// The busiest few: 20, of which 5 stay open, and 10 more for a while.
    High,
    /// Sizes of your own.
    Sized(Sizing),
}

/// The sizes of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizing {
    /// How many connections are kept open.
    pub min: u32,
    /// The most connections.
    pub max: u32,
    /// How many more there may be for a while.
    pub overflow: u32,
}

impl Traffic {
    /// What it stands for.
    pub fn sizing(self) -> Sizing {
        let sized = |min, max, overflow| Sizing { min, max, overflow };
        match self {
            Traffic::Low => sized(0, 5, 0),
            Traffic::Medium => sized(0, 10, 5),
            Traffic::High => sized(5, 20, 10),
            Traffic::Sized(sizing) => sizing,
        }
    }
}

impl PoolSettings {
    /// Sets the sizes that go with that traffic.
    pub fn traffic(mut self, traffic: Traffic) -> Self {
        let sizing = traffic.sizing();
        self.overflow = sizing.overflow;
        self.origins.insert(Key::Overflow, "traffic".into());
        self.max_connections(sizing.max).min_connections(sizing.min)
    }

    /// Sets the sizes that a table of yours gives this [service](Self::service).
    ///
    /// # Errors
    /// When the table does not know the service.
    ///
    /// ```
    /// use leaktrace::kit::{PoolSettings, Traffic};
    ///
    /// let table = [("orders", Traffic::High), ("invoices", Traffic::Low)];
    /// let settings = PoolSettings::default().service("invoices").traffic_from(&table)?;
    /// assert_eq!(settings.get_max_connections(), 5);
    /// # Ok::<(), leaktrace::ConfigError>(())
    /// ```
    pub fn traffic_from(self, table: &[(&str, Traffic)]) -> Result<Self, ConfigError> {
        let service = self.service.clone().unwrap_or_default();
        match table.iter().find(|(name, _)| *name == service) {
            Some((_, traffic)) => Ok(self.traffic(*traffic)),
            None => {
                let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
                Err(ConfigError::new("service", &service, names.join(", ")))
            }
        }
    }

    /// Sets the most connections to two for each core of this machine, plus one: what a database
    /// *server* with as many cores works on at once. A place to start on one shared machine only.
    ///
    /// From PostgreSQL's own wiki, "Number Of Database Connections": cores × 2 + effective spindles.
    pub fn from_cores(self) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let max = u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(2);
        self.max_connections(max.saturating_add(1))
    }

    /// Sets the most connections by Little's law: `rate` checkouts a second times how long each is
    /// held, and `headroom` on top (0.25 for a quarter); at least 1.
    ///
    /// The hold time counts from checkout to return, not the statements alone: see `after last use`
    /// in a report. No timeout is part of it: how long somebody would wait does not change how much
    /// there is to do.
    ///
    /// ```
    /// use leaktrace::kit::PoolSettings;
    /// use std::time::Duration;
    ///
    /// // 200 requests a second that hold a connection for 40 ms each keep 8 of them busy.
    /// let settings = PoolSettings::default().sized_for(200.0, Duration::from_millis(40), 0.25);
    /// assert_eq!(settings.get_max_connections(), 10);
    /// ```
    pub fn sized_for(self, rate: f64, hold: Duration, headroom: f64) -> Self {
        let busy = rate.max(0.0) * hold.as_secs_f64();
        let wanted = busy * (1.0 + headroom.max(0.0));
        // A hair below a whole number is that number.
        let max = (wanted - 1e-9).ceil().clamp(1.0, f64::from(u32::MAX));
        self.max_connections(max as u32)
    }
}
