//! Metrics, as a scrape gets them: through the real exporter over real HTTP, compared with the truth.

#[path = "../support/mod.rs"]
mod support;

mod connecting;
mod events;
mod ground;
mod health;
mod installed;
mod labels;
mod names;
mod observers;
mod pages;
mod secrets;
mod values;
