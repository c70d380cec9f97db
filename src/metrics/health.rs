//! Whether the database answers, as a metric. With the feature `kit`.
//!
//! Responsible for publishing what [`Pool::health`] finds. Not responsible for finding it.

use sqlx::Database;

use super::Metrics;
use super::names::{HEALTH_FAILURES, HEALTHY, POOL};
use super::publish::State;
use crate::Pool;
use crate::kit::Health;

impl Metrics {
    /// Asks the database whether it is there, as [`Pool::health`] does, and publishes the answer:
    /// `leaktrace.healthy` and `leaktrace.health_failures`.
    ///
    /// Call it where the service is asked for its readiness, or every few seconds. Nobody else does:
    /// without a call these two are not published.
    pub async fn health<DB: Database>(&self, pool: &Pool<DB>) -> Health {
        let health = pool.health().await;
        let name = pool.name();
        let mut state = self.state();
        let failures = state.failures.entry(name.to_string()).or_default();
        *failures = match health.ok {
            true => 0,
            false => failures.saturating_add(1),
        };
        self.set_health(name, f64::from(u8::from(health.ok)), *failures);
        health
    }

    fn set_health(&self, pool: &str, healthy: f64, failures: u32) {
        let outlet = &self.events.outlet;
        outlet.gauge(HEALTHY, &[(POOL, pool)]).set(healthy);
        outlet.gauge(HEALTH_FAILURES, &[(POOL, pool)]).set(failures);
    }

    /// The pool is gone: neither healthy nor not.
    pub(super) fn forget_health(&self, state: &mut State, pool: &str) {
        if state.failures.remove(pool).is_some() {
            self.set_health(pool, f64::NAN, 0);
        }
    }
}
