//! Responsible for proving the suite `adoption` honest: the same files, on sqlx's own types. What
//! fails here is a mistake of the test; what passes here and fails there is one of the crate.

#[path = "adoption/db_of_sqlx.rs"]
mod db;
#[path = "adoption/ground.rs"]
mod ground;
#[path = "support/mod.rs"]
mod support;

#[path = "adoption/advisory_lock.rs"]
mod advisory_lock;
#[path = "adoption/any.rs"]
mod any;
#[path = "adoption/async_trait_repository.rs"]
mod async_trait_repository;
#[path = "adoption/axum_handlers.rs"]
mod axum_handlers;
#[path = "adoption/copy.rs"]
mod copy;
#[path = "adoption/explicit_derefs.rs"]
mod explicit_derefs;
#[path = "adoption/generic_acquire.rs"]
mod generic_acquire;
#[path = "adoption/generic_database.rs"]
mod generic_database;
#[path = "adoption/generic_executor.rs"]
mod generic_executor;
#[path = "adoption/helper_functions.rs"]
mod helper_functions;
#[path = "adoption/lifetimes.rs"]
mod lifetimes;
#[path = "adoption/listener.rs"]
mod listener;
#[path = "adoption/mariadb.rs"]
mod mariadb;
#[path = "adoption/method_calls.rs"]
mod method_calls;
#[path = "adoption/migrations.rs"]
mod migrations;
#[path = "adoption/pool_hooks.rs"]
mod pool_hooks;
#[path = "adoption/pool_options.rs"]
mod pool_options;
#[path = "adoption/pool_surface.rs"]
mod pool_surface;
#[path = "adoption/prepared.rs"]
mod prepared;
#[path = "adoption/query_as.rs"]
mod query_as;
#[path = "adoption/query_builder.rs"]
mod query_builder;
#[path = "adoption/query_macros.rs"]
mod query_macros;
#[path = "adoption/raw_sql.rs"]
mod raw_sql;
#[path = "adoption/respelled.rs"]
mod respelled;
#[path = "adoption/savepoints.rs"]
mod savepoints;
#[path = "adoption/shared_guards.rs"]
mod shared_guards;
#[path = "adoption/social/mod.rs"]
mod social;
#[path = "adoption/spawned_tasks.rs"]
mod spawned_tasks;
#[path = "adoption/sqlite.rs"]
mod sqlite;
#[path = "adoption/sqlx_test.rs"]
mod sqlx_test;
#[path = "adoption/streams.rs"]
mod streams;
