//! Whether all instances of all services fit the server.
//!
//! Responsible for the sum and for telling it. Not responsible for the size of one pool.

use std::fmt;

#[cfg(any(feature = "postgres", feature = "mysql"))]
use sqlx::Row;

/// The connections that one service may open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    service: String,
    replicas: u32,
    connections: u32,
}

impl Share {
    /// A service, how many instances of it run, also during a deployment, and the most connections of
    /// one, overflow included.
    pub fn new(service: impl Into<String>, replicas: u32, connections: u32) -> Self {
        Self {
            service: service.into(),
            replicas,
            connections,
        }
    }

    fn sum(&self) -> u64 {
        u64::from(self.replicas) * u64::from(self.connections)
    }
}

/// All services of one server.
///
/// # Examples
/// As a test, so that a change of a replica count cannot take the database down:
/// ```
/// use leaktrace::kit::{Budget, Limit, Share};
///
/// let budget = Budget::of(&[
///     Share::new("orders", 6, 10),
///     Share::new("invoices", 2, 5),
/// ]);
/// let use_ = budget.against(Limit::new(100, 3))?;
/// assert!(!use_.is_tight(), "{use_}");
/// # Ok::<(), leaktrace::kit::OverBudget>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    shares: Vec<Share>,
}

/// What a server can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    max: u32,
    reserved: u32,
}

impl Limit {
    /// `max_connections` of the server, and how many of them are not for services:
    /// `superuser_reserved_connections`, and those of monitoring, migrations and people.
    pub fn new(max: u32, reserved: u32) -> Self {
        Self { max, reserved }
    }

    /// Keeps more of them for others than services: monitoring, migrations, people.
    pub fn less(self, others: u32) -> Self {
        Self {
            reserved: self.reserved.saturating_add(others),
            ..self
        }
    }

    /// Reads both from a PostgreSQL server: `max_connections`, `superuser_reserved_connections` and,
    /// since 16, `reserved_connections`.
    ///
    /// # Errors
    /// What the server answers.
    #[cfg(feature = "postgres")]
    pub async fn of_postgres(pool: &crate::PgPool) -> Result<Self, sqlx::Error> {
        let row = sqlx::raw_sql(
            "SELECT current_setting('max_connections'), \
             current_setting('superuser_reserved_connections'), \
             coalesce(current_setting('reserved_connections', true), '0')",
        )
        .fetch_one(pool)
        .await?;
        let number = |at: usize| -> Result<u32, sqlx::Error> {
            let text: &str = row.try_get(at)?;
            text.parse()
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))
        };
        Ok(Self::new(number(0)?, number(1)?.saturating_add(number(2)?)))
    }

    /// Reads it from a MariaDB or MySQL server, which keeps one for an administrator beside them.
    ///
    /// # Errors
    /// What the server answers.
    #[cfg(feature = "mysql")]
    pub async fn of_mysql(pool: &crate::MySqlPool) -> Result<Self, sqlx::Error> {
        let row = sqlx::raw_sql("SELECT CAST(@@max_connections AS SIGNED)")
            .fetch_one(pool)
            .await?;
        let max: i64 = row.try_get(0)?;
        Ok(Self::new(u32::try_from(max).unwrap_or(u32::MAX), 0))
    }

    fn usable(self) -> u64 {
        u64::from(self.max.saturating_sub(self.reserved))
    }
}

impl Budget {
    /// All services of one server.
    pub fn of(shares: &[Share]) -> Self {
        Self {
            shares: shares.to_vec(),
        }
    }

    /// Compares the sum with what the server can take. Above 80 % a line at WARN says so too: a
    /// deployment that runs old and new instances side by side needs the rest.
    ///
    /// # Errors
    /// When the server cannot take them all; the table says which.
    pub fn against(&self, limit: Limit) -> Result<BudgetUse, OverBudget> {
        let used = BudgetUse {
            budget: self.clone(),
            limit,
        };
        if used.sum() > limit.usable() {
            return Err(OverBudget(used));
        }
        if used.is_tight() {
            tracing::warn!(target: "leaktrace::kit", "connections are scarce:\n{used}");
        }
        Ok(used)
    }
}

/// How much of a server its services use. `Display` is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetUse {
    budget: Budget,
    limit: Limit,
}

impl BudgetUse {
    /// How many connections all instances may open.
    pub fn sum(&self) -> u64 {
        self.budget.shares.iter().map(Share::sum).sum()
    }

    /// The part of what the server can take; above 1 it is too much.
    pub fn utilization(&self) -> f64 {
        // A server that can take none is over with the first.
        self.sum() as f64 / self.limit.usable().max(1) as f64
    }

    /// Whether it is above 80 %.
    pub fn is_tight(&self) -> bool {
        self.utilization() > 0.8
    }
}

impl fmt::Display for BudgetUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .budget
            .shares
            .iter()
            .map(|share| share.service.chars().count());
        let wide = names.max().unwrap_or(0).max("service".len());
        writeln!(f, "{:wide$}  replicas  connections    sum", "service")?;
        for share in &self.budget.shares {
            let (replicas, connections) = (share.replicas, share.connections);
            let sum = share.sum();
            writeln!(
                f,
                "{:wide$}  {replicas:>8}  {connections:>11}  {sum:>5}",
                share.service
            )?;
        }
        write!(
            f,
            "{:wide$}  {:>8}  {:>11}  {:>5}  of {} ({} less {} reserved), {:.0} %",
            "all",
            "",
            "",
            self.sum(),
            self.limit.usable(),
            self.limit.max,
            self.limit.reserved,
            self.utilization() * 100.0
        )
    }
}

/// The services may open more connections than the server can take. `Display` is a table.
#[derive(Clone, PartialEq, Eq)]
pub struct OverBudget(BudgetUse);

impl OverBudget {
    /// The sum and the limit.
    pub fn budget_use(&self) -> &BudgetUse {
        &self.0
    }
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the services may open more connections than the server takes:\n{}",
            self.0
        )
    }
}

impl fmt::Debug for OverBudget {
    /// As `Display`: a test that unwraps it prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for OverBudget {}
