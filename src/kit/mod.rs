//! What stands around a pool in every service: settings, TLS, budgets, health.
//!
//! Behind the feature `kit`. A guest of this crate: it uses only the names that `lib.rs` exports, as
//! any user could write it, so nothing here changes what the core does. Each part is thin over sqlx
//! and well-kept crates. Not responsible for finding leaks.
//!
//! - [`PoolSettings`]: from the environment, a file or code to a [`Pool`](crate::Pool).
//! - [`Traffic`]: how many connections.
//! - [`Budget`]: whether all services together fit the server.
//! - [`TlsMode`], [`TlsFault`]: what is demanded of TLS, and what is wrong with it.

mod budget;
mod connect;
mod link;
mod settings;
mod tls;

pub use self::budget::{Budget, BudgetUse, Limit, OverBudget, Share};
pub use self::connect::ConnectError;
pub use self::settings::{PoolSettings, Sizing, Traffic, VARIABLES, Variable};
pub use self::tls::{TlsFault, TlsMode};
