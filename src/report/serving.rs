//! Who is served by the holders of a group, and when that was last polled.
//!
//! Responsible for one line of the report.

use std::fmt::Write;

use super::Group;
use crate::clock::span;
use crate::finding::Kind;
use crate::judge::{BLOCKING, SAME_MOMENT};
use crate::registry::{Activity, Holder};

pub(super) fn serving(group: &Group, oldest: &Holder) -> String {
    let mut text = String::new();
    for (index, (route, count)) in group.routes.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let _ = match group.routes.len() {
            1 => write!(text, "{comma}{route}"),
            _ => write!(text, "{comma}{route} ({count})"),
        };
    }
    let requests = group.routes.iter().map(|(_, count)| count).sum::<usize>();
    if requests > 1 {
        let _ = write!(text, "   {requests} requests");
    }
    let id = oldest
        .scope
        .as_ref()
        .and_then(|scope| scope.request_id.as_ref());
    if let Some(id) = id {
        let eg = if requests > 1 { ", e.g." } else { "   request" };
        let _ = write!(text, "{eg} {id}");
    }
    if let Some(cut) = oldest.cut {
        // Whoever polls it now is another task.
        let _ = write!(text, "; cut {cut}");
    } else if let Some(ago) = oldest
        .polled_ago
        .filter(|_| group.kind != Some(Kind::ReturnedLate))
    {
        let quiet = matches!(oldest.activity, Activity::Idle { .. })
            && ago + SAME_MOMENT >= oldest.activity_for;
        let _ = match (oldest.in_poll_for, ago.as_millis()) {
            (Some(inside), _) if inside >= BLOCKING => {
                write!(
                    text,
                    "; inside one poll for {} (blocking call)",
                    span(inside)
                )
            }
            (_, 0) => write!(text, "; being polled now"),
            _ if quiet => write!(text, "; not polled since the last use"),
            // The moment is that of the poll's beginning; what it used, it used after that.
            _ => write!(
                text,
                "; last polled {} ago",
                span(ago.min(oldest.activity_for))
            ),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Idle in a transaction for eleven seconds, or as `with` says.
    fn shown(with: impl FnOnce(&mut Holder)) -> String {
        let mut holder = Holder {
            activity: Activity::Idle {
                since: SystemTime::UNIX_EPOCH,
            },
            activity_for: SECOND * 11,
            ..Holder::harmless()
        };
        with(&mut holder);
        let group = Group::of(vec![holder.clone()], None, Some(Kind::HeldTooLong), &[]);
        serving(&group, &holder)
    }

    #[test]
    fn a_poll_at_the_last_use_is_told_from_one_after_it() {
        let polled = |ago| shown(|holder| holder.polled_ago = Some(ago));
        assert_eq!(polled(SECOND * 11), "; not polled since the last use");
        assert_eq!(polled(SECOND), "; last polled 1.0 s ago");
        assert_eq!(polled(Duration::ZERO), "; being polled now");
    }

    #[test]
    fn a_poll_that_does_not_end_is_called_what_it_is() {
        let inside = |inside| {
            shown(|holder| {
                holder.polled_ago = Some(Duration::ZERO);
                holder.in_poll_for = Some(inside);
            })
        };
        assert_eq!(
            inside(SECOND),
            "; inside one poll for 1.0 s (blocking call)"
        );
        assert_eq!(inside(SECOND / 100), "; being polled now");
    }

    #[test]
    fn what_was_used_in_a_poll_was_polled_then() {
        let since = SystemTime::UNIX_EPOCH;
        let text = shown(|holder| {
            holder.activity = Activity::InFlight { since };
            holder.activity_for = SECOND / 1_000;
            holder.polled_ago = Some(SECOND * 4);
        });
        assert_eq!(text, "; last polled 1 ms ago");
    }
}
