//! The one line that suffices.
//!
//! Responsible for the sentence that is a finding's message in a log. Not responsible for the
//! longer text below it.

use crate::clock::span;
use crate::finding::Kind;
use crate::registry::Holder;

/// The headline of a finding about holders. `oldest` stands for all `count` of them.
pub(crate) fn headline(kind: Kind, pool: &str, oldest: &Holder, count: u64) -> String {
    let times = if count > 1 && kind != Kind::CloseBlocked {
        format!("{count} × ")
    } else {
        String::new()
    };
    let held = span(oldest.held_for);
    let idle = span(oldest.activity_for);
    let what = match kind {
        Kind::IdleInTransaction => {
            format!("idle in transaction {idle}, held {held}{}", by_word(oldest))
        }
        Kind::HeldTooLong => format!("held {held}, {}{}", doing(oldest), by_word(oldest)),
        Kind::OutlivedRequest => format!("held {held}, outlived its request"),
        Kind::ReturnedLate => format!("returned late, after {held}"),
        Kind::CloseBlocked if count > 1 => {
            format!("waits for {count} holders, the oldest held {held}")
        }
        Kind::CloseBlocked => format!("waits for one holder, held {held}"),
        Kind::DirtyReturn => format!("came back inside of a transaction, held {held}"),
        Kind::LostWrites => format!("its writes are lost, held {held}"),
        Kind::CommitUnknown => format!("its commit was cancelled in flight, held {held}"),
        Kind::StuckReturn => "stuck on its way back".to_string(),
        Kind::Exhausted => format!("held {held}"),
    };
    let mut line = format!("pool \"{pool}\": {times}{what}");
    if let Some(label) = &oldest.label {
        line += &format!(", label \"{label}\"");
    }
    match (&oldest.acquired_by, &oldest.last_sql) {
        (Some(site), _) => line += &format!(", acquired {site}"),
        (None, Some(sql)) => line += &format!(", by a statement on the pool itself: {sql}"),
        (None, None) => line += ", by a statement on the pool itself",
    }
    if let Some(site) = &oldest.last_used_by {
        line += &format!(", last used {site}");
    }
    if let Some(scope) = &oldest.scope {
        line += &format!(", serving {}", scope.route);
    }
    if let Some(cut) = oldest.cut {
        line += &format!(", its request was cut {cut}");
    }
    line
}

/// What the server says, and who is in the way.
fn by_word(holder: &Holder) -> String {
    let Some(words) = holder.server_says() else {
        return String::new();
    };
    let blockers = holder.server.iter().flat_map(|said| &said.blocked_by);
    // Its lines stand in the report.
    let who = blockers.take(1).map(crate::registry::Blocker::who);
    match who.last() {
        Some(who) => format!(" ({words}; blocked by {who})"),
        None => format!(" ({words})"),
    }
}

/// What is known of the connection, in words.
pub(super) fn doing(holder: &Holder) -> String {
    use crate::registry::Activity;
    let time = span(holder.activity_for);
    match holder.activity {
        Activity::InFlight { .. } if holder.parked => {
            format!("rows not read, statement open for {time}")
        }
        Activity::InFlight { .. } => format!("statement running for {time}"),
        Activity::Idle { .. } if holder.uses == 0 => "not used yet".to_string(),
        Activity::Idle { .. } => format!("idle for {time}"),
        Activity::Unknown { .. } => {
            format!("lent as a raw connection {time} ago; what runs there was not seen")
        }
    }
}
