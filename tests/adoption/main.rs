//! Responsible for one promise: code written for sqlx compiles and behaves the same with the types
//! of this crate. One file per kind of user code; `db.rs` alone decides whose types they get.

mod db;
mod ground;
#[path = "../support/mod.rs"]
mod support;

mod advisory_lock;
mod any;
mod async_trait_repository;
mod axum_handlers;
mod closure_transactions;
mod copy;
mod explicit_derefs;
mod generic_acquire;
mod generic_database;
mod generic_executor;
mod helper_functions;
mod lifetimes;
mod listener;
mod mariadb;
mod method_calls;
mod migrations;
mod pool_hooks;
mod pool_options;
mod pool_surface;
mod prepared;
mod query_as;
mod query_builder;
mod query_macros;
mod raw_sql;
mod respelled;
mod savepoints;
mod shared_guards;
mod social;
mod spawned_tasks;
mod sqlite;
mod sqlx_test;
mod streams;
