//! What to do about a holder, from evidence.
//!
//! Responsible for one table: the first condition that matches gives the sentence; when none does,
//! nothing is said. A wrong remedy costs more than none.

use std::time::Duration;

use super::waits::is_left_alone_by;
use crate::clock::span;
use crate::registry::{Activity, Holder, HolderKind, Phase, ServerState, Testimony, Waiter};

/// A last poll that lies no further than this behind the last use is the poll of that use: the task
/// has not run since.
pub(crate) const SAME_MOMENT: Duration = Duration::from_millis(50);

/// A poll that takes longer does what no task may do: above what a busy machine makes of a short one.
pub(crate) const BLOCKING: Duration = Duration::from_millis(250);

/// The remedy for a holder that is out for too long.
pub(crate) fn remedy(holder: &Holder, waiters: &[Waiter]) -> Option<String> {
    let alone = of_itself(holder, waiters);
    let Some(blocks) = &holder.blocks else {
        return alone;
    };
    let others = format!("{} for a lock that it has", blocks.wait());
    Some(match alone {
        // That it is slow is all that is known, and not all that matters.
        Some(alone) if alone == in_flight(holder) && !waits_for_a_lock(holder) => {
            format!(
                "{others}, while its statement runs: end its transaction before that, or make the statement faster"
            )
        }
        Some(alone) => format!("{alone}; {others}"),
        None => format!("{others}: end its transaction sooner"),
    })
}

/// The same, whoever else waits for it.
fn of_itself(holder: &Holder, waiters: &[Waiter]) -> Option<String> {
    if let Some(text) = waits_itself(holder, waiters) {
        return Some(text);
    }
    let line = holder
        .last_used_by
        .as_ref()
        .or(holder.acquired_by.as_ref())
        .map_or_else(|| "its last use".to_string(), |line| line.short());
    let last_use = match &holder.last_used_by {
        Some(line) => format!("its last use at {}", line.short()),
        None => "its last use".to_string(),
    };
    let transaction = if holder.in_transaction {
        ", with the transaction open"
    } else {
        ""
    };
    if holder
        .scope_ended_for
        .is_some_and(|ended| ended > holder.grace)
    {
        return Some(
            "it was moved into a task, a field or a static that lives on after the response; let that task check its own connection out, under a scope of its own".to_string(),
        );
    }
    // It explains the hold when it is most of what was done since the last use.
    let blocks = |inside: &Duration| *inside >= BLOCKING && *inside * 2 >= holder.activity_for;
    if let Some(inside) = holder.in_poll_for.filter(blocks) {
        return Some(format!(
            "its request blocks a thread of the runtime after {last_use}, for {} so far: blocking work belongs on spawn_blocking{transaction}",
            span(inside)
        ));
    }
    let text = match holder.activity {
        Activity::Unknown { .. } => unseen(holder),
        _ if holder.uses == 0 => format!(
            "it was taken at {line} and not used yet: take it later, right before its first statement"
        ),
        // What it does now began late in its life: it does not explain why it is out for so long.
        _ if holder.activity_for.saturating_mul(2) < holder.held_for => return None,
        Activity::InFlight { .. } if holder.parked => {
            "its rows are not being read: the reader is slow, or waits for something itself; collect the rows first, or read faster".to_string()
        }
        Activity::InFlight { .. } => in_flight(holder),
        Activity::Idle { .. } if holder.lent => format!(
            "what {line} lent it to runs nothing on it: it awaits something that is not this database{transaction}"
        ),
        Activity::Idle { .. }
            if holder.kind == HolderKind::Connection
                && holder.uses == 1
                && holder.acquired_by.is_some()
                && same_line(holder) =>
        {
            format!("a temporary or guard of {line} is kept to the end of its block: bind the result first, so that the connection goes back")
        }
        Activity::Idle { .. } => match holder.polled_ago {
            Some(ago) if ago + SAME_MOMENT < holder.activity_for => {
                format!("its request was polled {} ago, after {last_use}: the task is busy with other things{transaction}", span(ago))
            }
            Some(_) => format!("it awaits something after {last_use} that is not this database{transaction}"),
            None if holder.in_transaction => format!(
                "it does something after {last_use} that is not this database, with the transaction open: commit before, or do it first"
            ),
            None => return None,
        },
    };
    Some(text)
}

/// The remedy for a holder, of any age, whose owner waits for another connection.
pub(crate) fn waits_itself(holder: &Holder, waiters: &[Waiter]) -> Option<String> {
    if holder.phase != Phase::Held {
        return None;
    }
    let mut waiters = waiters.iter();
    let waiter = waiters.find(|waiter| is_left_alone_by(holder, waiter))?;
    let place = match &waiter.acquired_by {
        Some(site) => format!("at {site}"),
        None => "with a statement on the pool".to_string(),
    };
    Some(format!(
        "its owner waits for another connection of pool \"{}\" {place}: use this one there, or give it back first",
        waiter.pool
    ))
}

/// A statement runs: why it takes so long.
fn in_flight(holder: &Holder) -> String {
    let is_it = |said: &&Testimony| said.is_fresh() && said.state == ServerState::InFlight;
    let Some(said) = holder.server.as_ref().filter(is_it) else {
        return "the statement is slow, or waits for a lock: look at its plan and at who blocks it"
            .to_string();
    };
    if let Some(blocker) = said.blocked_by.first() {
        let advice = match (blocker.holder, blocker.is_returning()) {
            (Some(_), true) => "that one is on its way back, and the server still works for it",
            (Some(_), false) => "that one keeps it, and its lines stand above",
            (None, _) => "look at who that is",
        };
        return format!(
            "the statement waits for a lock of {}: {advice}",
            blocker.who()
        );
    }
    match said.waits_for.as_deref() {
        Some(waits) if is_lock(waits) => {
            format!("the statement waits for a lock ({waits}): look at who holds it")
        }
        Some(waits) if waits.starts_with("Client") => {
            format!(
                "the server waits for this side ({waits}): rows are read slowly, or sent slowly"
            )
        }
        _ => "the statement is slow, and waits for no lock: look at its plan".to_string(),
    }
}

/// Whether the server has just said that its statement waits for a lock.
fn waits_for_a_lock(holder: &Holder) -> bool {
    let said = holder.server.as_ref().filter(|said| said.is_fresh());
    said.is_some_and(|said| {
        !said.blocked_by.is_empty() || said.waits_for.as_deref().is_some_and(is_lock)
    })
}

/// PostgreSQL's and MariaDB's words for it.
fn is_lock(waits_for: &str) -> bool {
    waits_for.starts_with("Lock") || waits_for.starts_with("Waiting for")
}

fn same_line(holder: &Holder) -> bool {
    match (&holder.acquired_by, &holder.last_used_by) {
        (Some(acquired), Some(used)) => {
            acquired.file() == used.file() && acquired.line() == used.line()
        }
        _ => false,
    }
}

/// Nothing is known of a raw loan but its beginning: say how to ask the server.
fn unseen(holder: &Holder) -> String {
    let line = holder
        .last_used_by
        .as_ref()
        .map_or_else(String::new, |line| format!(" at {}", line.short()));
    let pid = holder
        .backend
        .map_or_else(String::new, |pid| format!(" about {pid}"));
    format!(
        "lent as a raw connection{line}: whether a statement still runs there was not seen; ask the server{pid} (pg_stat_activity, SHOW PROCESSLIST)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Blocker, Blocks, Phase};
    use crate::site::Location;
    use std::time::SystemTime;

    fn used(line: u32) -> Holder {
        Holder {
            uses: 1,
            last_used_by: Some(Location::new("src/repo.rs", line, 22)),
            activity_for: Duration::from_secs(41),
            ..Holder::harmless()
        }
    }

    #[test]
    fn each_row_of_the_table_matches_its_evidence_and_no_other() {
        let since = SystemTime::UNIX_EPOCH;
        let flight = Activity::InFlight { since };
        let cases: Vec<(Holder, &str)> = vec![
            (Holder::harmless(), "take it later"),
            (used(88), "kept to the end of its block"),
            (
                Holder {
                    activity: flight,
                    ..used(91)
                },
                "the statement is slow",
            ),
            (
                Holder {
                    activity: flight,
                    parked: true,
                    ..used(91)
                },
                "rows are not being read",
            ),
            (
                Holder {
                    activity: Activity::Unknown { since },
                    ..used(91)
                },
                "ask the server",
            ),
            (
                Holder {
                    in_transaction: true,
                    polled_ago: Some(Duration::from_secs(41)),
                    ..used(91)
                },
                "awaits something after its last use at repo.rs:91 that is not this database, with the transaction open",
            ),
            (
                Holder {
                    polled_ago: Some(Duration::from_millis(2)),
                    ..used(91)
                },
                "busy with other things",
            ),
            (
                Holder {
                    polled_ago: Some(Duration::ZERO),
                    in_poll_for: Some(Duration::from_secs(40)),
                    ..used(91)
                },
                "blocks a thread of the runtime after its last use at repo.rs:91, for 40.0 s so far",
            ),
            (
                Holder {
                    polled_ago: Some(Duration::ZERO),
                    in_poll_for: Some(Duration::from_millis(2)),
                    ..used(91)
                },
                "busy with other things",
            ),
            (
                Holder {
                    in_transaction: true,
                    ..used(91)
                },
                "commit before, or do it first",
            ),
        ];
        for (holder, expected) in cases {
            let text = remedy(&holder, &[]).expect(expected);
            assert!(text.contains(expected), "{text} / {expected}");
        }
    }

    fn said(blocked_by: Vec<Blocker>) -> Testimony {
        Testimony {
            state: ServerState::InFlight,
            state_for: Duration::from_secs(2),
            asked_ago: Duration::ZERO,
            sql: None,
            waits_for: (!blocked_by.is_empty()).then(|| "Lock transactionid".to_string()),
            blocked_by,
        }
    }

    fn in_flight_for(seconds: u64) -> Holder {
        let since = SystemTime::UNIX_EPOCH;
        Holder {
            activity: Activity::InFlight { since },
            held_for: Duration::from_secs(seconds),
            activity_for: Duration::from_secs(seconds),
            ..used(91)
        }
    }

    #[test]
    fn who_blocks_others_is_not_told_to_look_at_its_plan() {
        let slow = Holder {
            server: Some(said(Vec::new())),
            ..in_flight_for(9)
        };
        let text = remedy(&slow, &[]).expect("it is slow");
        assert!(
            text.contains("waits for no lock: look at its plan"),
            "{text}"
        );
        let culprit = Holder {
            blocks: Some(Blocks::of(3, Duration::from_secs(2))),
            ..slow
        };
        assert_eq!(
            remedy(&culprit, &[]).as_deref(),
            Some(
                "3 holders of this pool wait for a lock that it has, while its statement runs: end its transaction before that, or make the statement faster"
            )
        );
        let idle = Holder {
            in_transaction: true,
            blocks: Some(Blocks::of(1, Duration::from_secs(2))),
            polled_ago: Some(Duration::from_secs(41)),
            ..used(91)
        };
        assert_eq!(
            remedy(&idle, &[]).as_deref(),
            Some(
                "it awaits something after its last use at repo.rs:91 that is not this database, with the transaction open; another holder of this pool waits for a lock that it has"
            )
        );
    }

    #[test]
    fn who_is_blocked_hears_by_whom_in_few_words() {
        let by = |blocker: Blocker| {
            let victim = Holder {
                server: Some(said(vec![blocker])),
                ..in_flight_for(9)
            };
            remedy(&victim, &[]).expect("it waits")
        };
        let own = || Blocker {
            holder: Some(Holder::harmless().id),
            label: Some("import".to_string()),
            acquired_by: Some(Location::new("src/repo.rs", 12, 1)),
            ..Blocker::unknown(4711)
        };
        let text = by(own());
        assert!(
            text.contains("a lock of label \"import\": that one keeps it"),
            "{text}"
        );
        assert!(
            !text.contains("repo.rs:12"),
            "its lines stand above: {text}"
        );
        let text = by(Blocker {
            phase: Some(Phase::Returning),
            ..own()
        });
        assert!(text.contains("on its way back"), "{text}");
        let text = by(Blocker::unknown(4711));
        assert!(
            text.contains("pid 4711, not of this pool: look at who that is"),
            "{text}"
        );
    }

    #[test]
    fn a_line_of_the_last_use_that_is_not_known_is_not_made_up() {
        let statement = Holder {
            last_used_by: None,
            in_transaction: true,
            polled_ago: Some(Duration::from_secs(41)),
            ..used(91)
        };
        let text = remedy(&statement, &[]).expect("it awaits something");
        assert!(
            text.starts_with("it awaits something after its last use that is not"),
            "{text}"
        );
    }

    /// The owner of `holder` waits for another one since two seconds.
    fn waiter_of(holder: &Holder) -> Waiter {
        Waiter {
            owner: holder.owner,
            ..Waiter::bare(1)
        }
    }

    #[test]
    fn only_who_holds_and_leaves_alone_is_told_to_use_what_it_has() {
        let owned = Holder {
            owner: Some(crate::registry::Owner::Scope(7)),
            ..used(91)
        };
        let waiters = [waiter_of(&owned)];
        let text = waits_itself(&owned, &waiters).expect("it has one and waits");
        assert!(text.contains("use this one there"), "{text}");
        let since = SystemTime::UNIX_EPOCH;
        let innocent = [
            Holder {
                phase: Phase::Returning,
                ..owned.clone()
            },
            Holder {
                activity: Activity::InFlight { since },
                ..owned.clone()
            },
            // Taken after the wait began, by another branch.
            Holder {
                activity_for: Duration::from_secs(1),
                ..owned
            },
        ];
        for holder in innocent {
            assert_eq!(waits_itself(&holder, &waiters), None, "{holder:?}");
        }
    }

    #[test]
    fn without_evidence_nothing_is_said() {
        assert_eq!(remedy(&used(91), &[]), None);
    }

    #[test]
    fn what_began_a_moment_ago_does_not_explain_a_long_hold() {
        let since = SystemTime::UNIX_EPOCH;
        for activity in [Activity::InFlight { since }, Activity::Idle { since }] {
            let mut busy = Holder {
                activity,
                held_for: Duration::from_secs(10),
                activity_for: Duration::from_millis(3),
                in_transaction: true,
                uses: 40,
                ..used(91)
            };
            assert_eq!(
                remedy(&busy, &[]),
                None,
                "forty statements, each of them short"
            );
            busy.activity_for = Duration::from_secs(9);
            assert!(remedy(&busy, &[]).is_some(), "one of them is what it does");
        }
    }
}
