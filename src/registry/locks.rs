//! Who keeps whom from going on, by a lock.
//!
//! Responsible for the words of both sides, and for telling those who block of those who wait. What
//! is known of it is the server's word: see `testimony`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::holder::{Cut, Holder, HolderId, Phase, ScopeInfo};
use super::testimony::Testimony;
use crate::clock::span;
use crate::site::Location;

/// A backend that keeps another one from going on, by a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Blocker {
    /// The server's name of it.
    pub backend: i64,
    /// The holder of the same pool that has it.
    pub holder: Option<HolderId>,
    /// The request or job that holder serves.
    pub scope: Option<ScopeInfo>,
    /// The label of that holder's pool handle.
    pub label: Option<String>,
    /// The line that checked that holder out.
    pub acquired_by: Option<Location>,
    /// The line that last used that holder.
    pub last_used_by: Option<Location>,
    /// Where that holder is on its way.
    pub phase: Option<Phase>,
    /// In what that holder was when its request was cut.
    pub cut: Option<Cut>,
    /// The database user; of a backend that is none of this pool.
    pub user: Option<String>,
    /// What that backend's client calls itself.
    pub application: Option<String>,
    /// Its statement, masked, when the server tells it.
    pub sql: Option<String>,
}

impl Blocker {
    /// Of which nothing is known but its name.
    pub(crate) fn unknown(backend: i64) -> Self {
        Self {
            backend,
            holder: None,
            scope: None,
            label: None,
            acquired_by: None,
            last_used_by: None,
            phase: None,
            cut: None,
            user: None,
            application: None,
            sql: None,
        }
    }

    pub(super) fn is_holder(&mut self, own: &Holder) {
        self.holder = Some(own.id);
        self.scope.clone_from(&own.scope);
        self.label.clone_from(&own.label);
        self.acquired_by.clone_from(&own.acquired_by);
        self.last_used_by.clone_from(&own.last_used_by);
        self.phase = Some(own.phase);
        self.cut = own.cut;
    }

    /// The shortest that tells which one it is.
    pub(crate) fn who(&self) -> String {
        match self.holder {
            Some(_) => who(self.scope.as_ref(), self.label.as_deref()),
            None => format!("pid {}, not of this pool", self.backend),
        }
    }

    /// Whether the user has let it go: its connection is on its way back.
    pub(crate) fn is_returning(&self) -> bool {
        self.phase == Some(Phase::Returning)
    }
}

/// A holder in few words: its route, else its label.
fn who(scope: Option<&ScopeInfo>, label: Option<&str>) -> String {
    match (scope, label) {
        (Some(scope), _) => match &scope.request_id {
            Some(id) => format!("{} (request {id})", scope.route),
            None => scope.route.clone(),
        },
        (None, Some(label)) => format!("label \"{label}\""),
        (None, None) => "another holder of this pool".to_string(),
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.who())?;
        if self.holder.is_some() {
            match &self.acquired_by {
                Some(line) => write!(f, ", taken at {line}")?,
                None => f.write_str(", a statement on the pool itself")?,
            }
            if let Some(line) = &self.last_used_by {
                write!(f, ", last used at {line}")?;
            }
            write!(f, ", pid {}", self.backend)?;
            if let Some(cut) = self.cut {
                write!(f, "; its request was cut {cut}")?;
            }
            if self.is_returning() {
                f.write_str("; on its way back to the pool")?;
            }
            return Ok(());
        }
        if let Some(user) = &self.user {
            write!(f, ", user {user}")?;
        }
        if let Some(application) = &self.application {
            write!(f, ", application {application}")?;
        }
        match &self.sql {
            Some(sql) => write!(f, ": {sql}"),
            None => Ok(()),
        }
    }
}

/// Holders of the same pool that wait for a lock of one, by the server's word.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Blocks {
    /// How many.
    pub count: usize,
    /// What the one serves that has waited longest.
    pub scope: Option<ScopeInfo>,
    /// Its label.
    pub label: Option<String>,
    /// The line that checked it out.
    pub acquired_by: Option<Location>,
    /// How long it has waited, as far as the server tells.
    #[cfg_attr(
        feature = "json",
        serde(rename = "waits_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub waits_for: Duration,
}

impl Blocks {
    /// `3 holders of this pool wait`.
    pub(crate) fn wait(&self) -> String {
        match self.count {
            1 => "another holder of this pool waits".to_string(),
            count => format!("{count} holders of this pool wait"),
        }
    }

    fn add(&mut self, holder: &Holder, waits_for: Duration) {
        self.count += 1;
        if waits_for > self.waits_for || self.count == 1 {
            self.scope.clone_from(&holder.scope);
            self.label.clone_from(&holder.label);
            self.acquired_by.clone_from(&holder.acquired_by);
            self.waits_for = waits_for;
        }
    }

    #[cfg(test)]
    pub(crate) fn of(count: usize, waits_for: Duration) -> Self {
        Self {
            count,
            waits_for,
            ..Self::none()
        }
    }

    fn none() -> Self {
        Self {
            count: 0,
            scope: None,
            label: None,
            acquired_by: None,
            waits_for: Duration::ZERO,
        }
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => {}
            count => write!(f, "{count} holders of this pool, e.g. ")?,
        }
        f.write_str(&who(self.scope.as_ref(), self.label.as_deref()))?;
        match &self.acquired_by {
            Some(line) => write!(f, ", taken at {line}")?,
            None => f.write_str(", a statement on the pool itself")?,
        }
        write!(f, ", waiting for {}", span(self.waits_for))
    }
}

/// Tells those who block how many wait for them, and those who wait what has become of the others.
pub(super) fn join_locks(holders: &mut [Holder]) {
    let mut blocks: HashMap<HolderId, Blocks> = HashMap::new();
    let waiting = holders.iter().filter(|holder| holder.phase == Phase::Held);
    for holder in waiting {
        // On a raw loan another statement may run by now.
        let speaks = |said: &&Testimony| {
            said.is_fresh() || (!holder.lent && said.asked_ago < Testimony::RECENT)
        };
        let Some(said) = holder.server.as_ref().filter(speaks) else {
            continue;
        };
        let mut seen = HashSet::new();
        for blocker in said.blocked_by.iter().filter_map(|blocker| blocker.holder) {
            if seen.insert(blocker) {
                let blocks = blocks.entry(blocker).or_insert_with(Blocks::none);
                blocks.add(holder, said.state_for + said.asked_ago);
            }
        }
    }
    if blocks.is_empty() {
        return;
    }
    let now: HashMap<HolderId, (Phase, Option<Cut>)> = holders
        .iter()
        .filter(|holder| blocks.contains_key(&holder.id))
        .map(|holder| (holder.id, (holder.phase, holder.cut)))
        .collect();
    for holder in holders {
        holder.blocks = blocks.remove(&holder.id);
        let blockers = holder
            .server
            .iter_mut()
            .flat_map(|said| &mut said.blocked_by);
        for blocker in blockers {
            let own = blocker.holder.and_then(|id| now.get(&id));
            if let Some((phase, cut)) = own {
                blocker.phase = Some(*phase);
                blocker.cut = *cut;
            }
        }
    }
}
