//! The assertions for users' tests: their exact words, when they fail and when they do not.

#[path = "../detection/ground.rs"]
mod ground;
#[path = "../support/mod.rs"]
mod support;

mod blocks;
mod last_lines;
mod panics;
mod parallel;
mod rolled_back;
