//! What stands around a pool in every service: settings, TLS, budgets, health.
//!
//! Behind the feature `kit`. A guest of this crate: it uses only the names that `lib.rs` exports, as
//! any user could write it, so nothing here changes what the core does. Each part is thin over sqlx
//! and well-kept crates. Not responsible for finding leaks.
//!
//! - [`PoolSettings`]: from the environment, a file or code to a [`Pool`](crate::Pool).
//! - [`Traffic`]: how many connections.
//! - [`Budget`]: whether all services together fit the server.
//! - [`Pool::health`](crate::Pool::health), [`Health`], [`PoolWords`]: whether it answers.
//! - [`TlsMode`], [`TlsFault`]: what is demanded of TLS, and what is wrong with it.
//! - [`TenantPool`]: transactions of one tenant each, with row-level security.
//! - [`Replicated`]: reads go to a replica while it is there.

mod ageing;
mod budget;
mod connect;
mod error;
mod health;
mod link;
#[cfg(feature = "axum")]
mod probes;
mod replicated;
mod residue;
mod settings;
mod start;
mod status;
#[cfg(feature = "postgres")]
mod tenant;
mod tls;

pub use self::budget::{Budget, BudgetUse, Limit, OverBudget, Share};
pub use self::error::{ConnectError, WarmUp};
pub use self::health::Health;
#[cfg(feature = "axum")]
pub use self::probes::{liveness, readiness};
pub use self::replicated::Replicated;
pub use self::settings::{PoolSettings, Sizing, Traffic, VARIABLES, Variable};
pub use self::status::PoolWords;
#[cfg(feature = "postgres")]
pub use self::tenant::{TenantError, TenantPool, VoidPolicies};
pub use self::tls::{TlsFault, TlsMode};
