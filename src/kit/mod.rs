//! What stands around a pool in every service: settings, TLS, budgets, health.
//!
//! Behind the feature `kit`. A guest of this crate: it uses only the names that `lib.rs` exports, as
//! any user could write it, so nothing here changes what the core does. Each part is thin over sqlx
//! and well-kept crates. Not responsible for finding leaks.
