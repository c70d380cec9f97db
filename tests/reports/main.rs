//! What a person, a program and a log read: layout, shape, and what never leaves.

#[path = "../detection/ground.rs"]
mod ground;
#[path = "../support/mod.rs"]
mod support;

mod canary;
mod hostile_names;
mod json;
mod mask;
mod outlets;
mod text;
