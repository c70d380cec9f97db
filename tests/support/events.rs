//! The `tracing` events of target `leaktrace`, captured with their fields.
//!
//! Responsible for turning events into plain values; waiting for them is [`Capture`]'s work.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Deref;
use std::sync::OnceLock;

use tracing::dispatcher::Dispatch;
use tracing::field::{Field, Visit};
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::capture::Capture;

/// One event, its fields as text. The message is a field too, under its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) level: Level,
    pub(crate) target: String,
    pub(crate) message: String,
    pub(crate) fields: BTreeMap<String, String>,
}

/// A layer that keeps the events of `leaktrace` and its submodules. Clones share them.
///
/// Derefs to the [`Capture`] to list and await them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Capture<Captured>);

impl Events {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Hears what this thread says, until the guard is dropped.
    pub(crate) fn here(&self) -> DefaultGuard {
        hear(self.subscriber())
    }

    /// A subscriber for `tracing::subscriber::set_global_default`; for one thread it is [`hear`].
    pub(crate) fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
        tracing_subscriber::registry().with(self.clone())
    }
}

/// Makes `subscriber` the one of this thread, until the guard is dropped.
///
/// While a process has one subscriber, tracing takes it for everybody's: when another thread, which has
/// none, is the first to reach an event, it asks that thread alone, and remembers for all of them that
/// nobody wants the event. Tests run beside each other, so there is always a second one, which wants
/// nothing; what was remembered before is asked anew.
pub(crate) fn hear(subscriber: impl Subscriber + Send + Sync + 'static) -> DefaultGuard {
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| Dispatch::new(NoSubscriber::new()));
    let here = tracing::subscriber::set_default(subscriber);
    tracing::callsite::rebuild_interest_cache();
    here
}

impl Deref for Events {
    type Target = Capture<Captured>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        if target != "leaktrace" && !target.starts_with("leaktrace::") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.push(Captured {
            level: *event.metadata().level(),
            target: target.to_owned(),
            message: fields.0.get("message").cloned().unwrap_or_default(),
            fields: fields.0,
        });
    }
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    // Text without the quotes that its `Debug` would add.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}
