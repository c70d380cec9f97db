//! What goes to the log: tracing events, or stderr when nobody listens.
//!
//! Responsible for the form of the events. The monitor's threads are none of the user's, so the
//! subscriber of the place where the monitor was made is kept and used.

use std::sync::Once;

use tracing::dispatcher::{self, Dispatch};
use tracing::subscriber::NoSubscriber;
use tracing::{Level, event, event_enabled};

use crate::finding::{Finding, Severity};
use crate::site::{Location, Stack};

/// The log, as the monitor's threads reach it.
pub(crate) struct Voice {
    /// The subscriber of the place where the monitor was made; `None` when there was none: then
    /// the one that is the global default when something is said.
    dispatch: Option<Dispatch>,
    hint: Once,
}

impl Voice {
    /// Keeps the subscriber that is current here.
    pub(crate) fn here() -> Self {
        let dispatch = dispatcher::get_default(|dispatch| {
            (!dispatch.is::<NoSubscriber>()).then(|| dispatch.clone())
        });
        Self {
            dispatch,
            hint: Once::new(),
        }
    }

    /// Says the line of a finding at once, with what is known without reading debug information.
    pub(crate) fn say(&self, finding: &Finding) {
        let body = finding.body(false);
        self.within(|| {
            if is_heard() {
                line(finding, &body);
            } else {
                self.hint();
                eprintln!("leaktrace: {}\n{body}", finding.headline);
            }
        });
    }

    /// Says the stacks of a finding, when they were not part of its line. Naming may take a while.
    pub(crate) fn say_stacks(&self, finding: &Finding, unnamed: &[(Stack, Option<Location>)]) {
        for (stack, line) in unnamed {
            if !stack.says_more_than(line.as_ref()) {
                continue;
            }
            let id = finding.id;
            self.within(|| {
                if is_heard() {
                    event!(target: "leaktrace", Level::WARN, kind = "stack", %id, pool = %finding.pool, "{id} called by {stack}");
                } else {
                    eprintln!("leaktrace: {id} called by {stack}");
                }
            });
        }
    }

    /// Says something about leaktrace itself.
    pub(crate) fn note(&self, text: &str) {
        self.within(|| {
            if is_heard() {
                event!(target: "leaktrace", Level::WARN, "{text}");
            } else {
                eprintln!("leaktrace: {text}");
            }
        });
    }

    /// Says that a setting cannot be used.
    pub(crate) fn error(&self, text: &str) {
        self.within(|| {
            if is_heard() {
                event!(target: "leaktrace", Level::ERROR, "{text}");
            } else {
                eprintln!("leaktrace: {text}");
            }
        });
    }

    fn within(&self, say: impl FnOnce()) {
        match &self.dispatch {
            Some(dispatch) => dispatcher::with_default(dispatch, say),
            None => say(),
        }
    }

    fn hint(&self) {
        self.hint.call_once(|| {
            eprintln!(
                "leaktrace: no tracing subscriber takes the target `leaktrace` at WARN, so findings go to stderr; add `leaktrace=warn` to the filter"
            );
        });
    }
}

fn is_heard() -> bool {
    event_enabled!(target: "leaktrace", Level::WARN)
}

fn line(finding: &Finding, body: &str) {
    let oldest = finding.holders.first();
    let site = oldest
        .and_then(|holder| holder.acquired_by.as_ref())
        .map(tracing::field::display);
    let last_used = oldest
        .and_then(|holder| holder.last_used_by.as_ref())
        .map(tracing::field::display);
    let held_ms =
        oldest.map(|holder| u64::try_from(holder.held_for.as_millis()).unwrap_or(u64::MAX));
    let scope = oldest.and_then(|holder| holder.scope.as_ref());
    let route = scope.map(|scope| scope.route.as_str());
    let request_id = scope.and_then(|scope| scope.request_id.as_deref());
    let sql = oldest.and_then(|holder| holder.last_sql.as_deref());
    // The level of an event is part of its static description: one arm for each.
    macro_rules! say {
        ($level:expr) => {
            event!(
                target: "leaktrace",
                $level,
                // First, so that a plain log shows it right below the line, and the fields after it.
                report = format_args!("\n{body}\n"),
                kind = finding.kind.as_str(),
                phase = finding.phase(),
                id = %finding.id,
                pool = %finding.pool,
                held_ms,
                site,
                last_used,
                sql,
                route,
                request_id,
                count = finding.count,
                "{}", finding.headline
            )
        };
    }
    match finding.severity {
        Severity::Info => say!(Level::INFO),
        Severity::Warn => say!(Level::WARN),
        Severity::Error => say!(Level::ERROR),
    }
}
