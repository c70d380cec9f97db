//! What future and body hold of a request, so that its end is recorded exactly once.

use std::sync::Arc;

use http::Request;

use super::layer::Settings;
use super::route;
use crate::config::Detail;
use crate::monitor::Listed;
use crate::scope::{OnUnwind, Outcome, Scope};

/// The account of one request: its drop ends it as cancelled, unless it ended before.
pub(super) struct Account {
    scope: Scope,
    listed: Listed,
    settings: Arc<Settings>,
}

impl Account {
    /// Opens a scope for the request; `None` if nothing is recorded, or if an outer layer has opened
    /// one for this request already.
    pub(super) fn open<B>(settings: &Arc<Settings>, request: &Request<B>) -> Option<Self> {
        if settings.monitor.detail() == Detail::Off {
            return None;
        }
        let name = route::name(request, settings.route_of);
        if let Some(outer) = Scope::current().filter(Scope::is_of_request) {
            // A layer around the router and one inside it see the same request, the inner one with
            // a better view of its route.
            if outer.name() == name.as_str() {
                return None;
            }
            if outer.name() == route::unmatched(request.method()).as_str() {
                outer.learn_name(&name);
                return None;
            }
        }
        let request_id = route::request_id(request.headers(), &settings.request_id_header);
        let scope = Scope::of_request(name, request_id, settings.grace);
        Some(Self {
            listed: settings.monitor.request_started(&scope),
            scope,
            settings: Arc::clone(settings),
        })
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Records how the request ended; only the first call counts.
    pub(super) fn end(&self, outcome: Outcome) {
        if self.scope.end_now(outcome) {
            let monitor = &self.settings.monitor;
            monitor.request_ended(self.listed, &self.scope, outcome);
        }
    }

    /// A guard for the stack: a panic that passes it is how the request ended.
    pub(super) fn on_unwind(&self) -> OnUnwind<impl FnMut() + '_> {
        OnUnwind::new(|| self.end(Outcome::Panicked))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}
