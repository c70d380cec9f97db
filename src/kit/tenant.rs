//! Transactions of one tenant each, on PostgreSQL with row-level security.
//!
//! Responsible for [`TenantPool`], and for refusing a role for which policies do not hold. Not
//! responsible for the policies themselves, nor for a variable that somebody sets for a session: see
//! `residue`.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use sqlx::Error;

use super::residue::{Lines, check_variable, say_found};
use crate::{ConfigError, PgPool, PgTransaction};

/// A pool whose transactions belong to a tenant each.
///
/// Policies of the tables compare a column with a variable, such as
/// `USING (tenant = current_setting('app.tenant', true))`. [`begin`](Self::begin) sets it for its
/// transaction alone; whatever becomes of that, the next borrower has none.
///
/// Give the pool away: who keeps another handle of it needs no tenant.
///
/// # Examples
/// ```no_run
/// # async fn ship(pool: leaktrace::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// use leaktrace::kit::TenantPool;
///
/// let orders = TenantPool::new(pool, "app.tenant").await?;
/// let mut tx = orders.begin("acme").await?;
/// sqlx::query("UPDATE orders SET state = 'shipped'").execute(&mut *tx).await?; // acme's
/// tx.commit().await?;
///
/// let all = orders.bypass_tenant("nightly statistics"); // the label in reports
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TenantPool {
    pool: PgPool,
    variable: Arc<str>,
    /// For which policies were found to hold.
    role: Arc<str>,
    lines: Arc<Lines>,
}

/// The value before is read before it is set: a row of `before` must be there first. `role` is what
/// `SET LOCAL ROLE` sets.
const ENTER: &str = "WITH before AS MATERIALIZED (SELECT current_setting($1, true) AS value) \
     SELECT coalesce(value, '') <> '', set_config($1, $2, true), set_config('role', $3, true) \
     FROM before";
const SET: &str = "SELECT set_config($1, $2, $3)";
/// A member of the role that owns a table counts as its owner, as PostgreSQL has it.
const ASK: &str = "SELECT r.rolname::text, r.rolsuper, r.rolbypassrls, \
     ARRAY(SELECT c.oid::regclass::text FROM pg_class c \
         WHERE c.relrowsecurity AND NOT c.relforcerowsecurity \
           AND pg_has_role(r.oid, c.relowner, 'USAGE') ORDER BY 1), \
     EXISTS (SELECT FROM pg_class c WHERE c.relrowsecurity) \
     FROM pg_roles r WHERE r.rolname = current_user";

impl TenantPool {
    /// Makes transactions of that pool belong to the tenant in `variable`, such as `app.tenant`.
    ///
    /// Asks the server first whether policies hold for the role of the pool: they do not for
    /// superusers, for roles with `BYPASSRLS`, and for owners of tables whose row-level security is
    /// not forced. What changes on the server after that is not seen. Views and `SECURITY DEFINER`
    /// functions run as their owner, and are not looked at.
    ///
    /// # Errors
    /// See [`TenantError`].
    pub async fn new(pool: PgPool, variable: &str) -> Result<Self, TenantError> {
        Self::checked(pool, variable, None).await
    }

    /// As [`new`](Self::new), for a pool whose own role is above policies: each transaction takes
    /// that role with `SET LOCAL ROLE`. The role is checked in place of the pool's.
    ///
    /// A statement that says `RESET ROLE` takes the pool's own role back: a role of its own to log in
    /// with is the better choice.
    ///
    /// # Errors
    /// See [`TenantError`].
    pub async fn with_role(pool: PgPool, variable: &str, role: &str) -> Result<Self, TenantError> {
        Self::checked(pool, variable, Some(role)).await
    }

    async fn checked(
        pool: PgPool,
        variable: &str,
        role: Option<&str>,
    ) -> Result<Self, TenantError> {
        check_variable("variable", variable).map_err(TenantError::Variable)?;
        let asked = pool.labeled("tenant check").unreported();
        let mut tx = asked.begin().await.map_err(TenantError::Failed)?;
        if let Some(role) = role {
            let set = sqlx::query(SET).bind("role").bind(role).bind(true);
            let refused = |source| TenantError::Role {
                role: role.to_string(),
                source,
            };
            set.execute(&mut *tx).await.map_err(refused)?;
        }
        type Row = (String, bool, bool, Vec<String>, bool);
        let (role, superuser, bypass, tables, any): Row = sqlx::query_as(ASK)
            .fetch_one(&mut *tx)
            .await
            .map_err(TenantError::Failed)?;
        tx.rollback().await.map_err(TenantError::Failed)?;
        let why = match (superuser, bypass, tables.is_empty()) {
            (true, ..) => Some(VoidPolicies::Superuser),
            (_, true, _) => Some(VoidPolicies::BypassRls),
            (.., false) => Some(VoidPolicies::Owner { tables }),
            _ => None,
        };
        if let Some(why) = why {
            return Err(TenantError::Void { role, why });
        }
        if !any {
            tracing::warn!(
                target: "leaktrace::kit",
                pool = pool.name(),
                "pool \"{}\": no table of its database has row-level security, so every tenant sees \
                 all rows: ALTER TABLE … ENABLE ROW LEVEL SECURITY, and CREATE POLICY",
                pool.name(),
            );
        }
        Ok(Self {
            pool,
            variable: variable.into(),
            role: role.into(),
            lines: Arc::default(),
        })
    }

    /// Begins a transaction of that tenant. The calling line becomes the holder's.
    ///
    /// It is [sealed](crate::Transaction::seal): after a `COMMIT` or `ROLLBACK` that is sent as text,
    /// what follows is refused and does not run without the tenant.
    ///
    /// A value that somebody had set for the session is reset with this transaction's commit, and said
    /// at WARN.
    ///
    /// # Errors
    /// As [`Pool::begin`](crate::Pool::begin); an `Encode` of [`TenantError::NoTenant`] for an
    /// empty text.
    ///
    /// # Cancel safety
    /// As [`Pool::begin`](crate::Pool::begin): wherever it is dropped, the next borrower has no tenant.
    ///
    /// # Cost
    /// One round trip more than `Pool::begin`.
    #[track_caller]
    pub fn begin(
        &self,
        tenant: impl fmt::Display,
    ) -> impl Future<Output = Result<PgTransaction<'static>, Error>> + Send {
        let begin = self.pool.begin();
        let tenant = tenant.to_string();
        async move {
            if tenant.is_empty() {
                return Err(Error::Encode(Box::new(TenantError::NoTenant)));
            }
            let mut tx = begin.await?;
            self.enter(&mut tx, &tenant).await?;
            // Behind a COMMIT as text nobody's tenant, and with a role the pool's own, would go on.
            tx.seal();
            Ok(tx)
        }
    }

    async fn enter(&self, tx: &mut PgTransaction<'_>, tenant: &str) -> Result<(), Error> {
        let enter = sqlx::query_scalar(ENTER).bind(&*self.variable);
        let enter = enter.bind(tenant).bind(&*self.role);
        let survived: bool = enter.fetch_one(&mut **tx).await?;
        if survived {
            say_found(
                &self.lines,
                self.pool.name(),
                &self.variable,
                "was given out",
            );
            // For the session first, which hides what was set for the transaction.
            for (value, local) in [("", false), (tenant, true)] {
                let set = sqlx::query(SET).bind(&*self.variable);
                set.bind(value).bind(local).execute(&mut **tx).await?;
            }
        }
        Ok(())
    }

    /// Runs `work` in a transaction of that tenant: committed when it answers `Ok`, rolled back when
    /// it answers `Err`, panics, or is dropped.
    ///
    /// # Errors
    /// What `work` answers, or what beginning or committing fails with.
    #[track_caller]
    pub fn transaction<T, E, F>(
        &self,
        tenant: impl fmt::Display,
        work: F,
    ) -> impl Future<Output = Result<T, E>>
    where
        F: for<'a, 'b> AsyncFnOnce(&'a mut PgTransaction<'b>) -> Result<T, E>,
        E: From<Error>,
    {
        let begin = self.begin(tenant);
        async move {
            let mut tx = begin.await?;
            match work(&mut tx).await {
                Ok(value) => {
                    tx.commit().await?;
                    Ok(value)
                }
                Err(error) => {
                    // The error of the work tells more; the way back repeats the rollback.
                    let _ = tx.rollback().await;
                    Err(error)
                }
            }
        }
    }

    /// The pool without a tenant, and why: the reason is the label of its holders in reports.
    #[must_use]
    pub fn bypass_tenant(&self, reason: &'static str) -> PgPool {
        self.pool.labeled(reason)
    }

    /// The variable that policies read.
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// The role as which transactions run, for which policies hold.
    pub fn role(&self) -> &str {
        &self.role
    }
}

impl fmt::Debug for TenantPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantPool")
            .field("variable", &self.variable)
            .field("role", &self.role)
            .field("pool", &self.pool)
            .finish()
    }
}

/// Why a pool cannot keep tenants apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TenantError {
    /// The name of the variable is none that can be set.
    #[error(transparent)]
    Variable(ConfigError),
    /// Policies do not hold for the role.
    #[error(
        "row-level security does not hold for role \"{role}\": {why}; or connect as a role that is no \
         superuser, has no BYPASSRLS and owns no table, or name one in TenantPool::with_role"
    )]
    Void {
        /// The role of the pool, or the one that was given.
        role: String,
        /// What puts it above policies, and what to do.
        why: VoidPolicies,
    },
    /// The role cannot be taken by `SET LOCAL ROLE`.
    #[error(
        "the pool cannot SET LOCAL ROLE \"{role}\": {source}; create it, and GRANT it to the role of the pool"
    )]
    Role {
        /// The role that was given.
        role: String,
        /// What the server says.
        source: Error,
    },
    /// The server could not be asked.
    #[error("whether row-level security holds could not be asked: {0}")]
    Failed(#[source] Error),
    /// A transaction without a tenant.
    #[error("an empty text is no tenant: use bypass_tenant(reason) for work without one")]
    NoTenant,
}

/// What puts a role above policies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VoidPolicies {
    /// It is a superuser.
    Superuser,
    /// It has `BYPASSRLS`.
    BypassRls,
    /// It owns tables, or is a member of the role that does, and their policies are not forced.
    Owner {
        /// The tables.
        tables: Vec<String>,
    },
}

/// How many tables an error names.
const TABLES: usize = 5;

impl fmt::Display for VoidPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VoidPolicies::Superuser => f.write_str("it is a superuser: ALTER ROLE … NOSUPERUSER"),
            VoidPolicies::BypassRls => f.write_str("it has BYPASSRLS: ALTER ROLE … NOBYPASSRLS"),
            VoidPolicies::Owner { tables } => {
                let named = &tables[..tables.len().min(TABLES)];
                write!(f, "it owns {}", named.join(", "))?;
                if tables.len() > TABLES {
                    write!(f, " and {} more", tables.len() - TABLES)?;
                }
                f.write_str(": ALTER TABLE … FORCE ROW LEVEL SECURITY")
            }
        }
    }
}
