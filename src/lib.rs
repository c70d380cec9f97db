//! Finds leaked database connections in services that use sqlx.

#[allow(dead_code)]
mod clock;
#[allow(dead_code)]
mod sync;
