//! The report a person reads.
//!
//! Responsible for the layout: the most telling line first, one group per bug, the way to the fix at
//! the end. Every string in it was masked and escaped when it was recorded.

use std::fmt::{self, Write};

use super::headline::doing;
use super::serving::serving;
use super::{Group, Report};
use crate::clock::{span, time_of_day, uptime};
use crate::finding::{Finding, Kind};
use crate::registry::{Holder, Phase, PoolInfo, PoolStatus, SiteTotal, Waiter};
use crate::site::{Location, Reading, Stack};

const SITES: usize = 3;
const BLOCKERS: usize = 3;

/// `leaktrace: pool "orders" 10/10 out, 23 waiting (oldest 4.2 s)`.
pub(crate) fn status_line(pool: &str, status: &PoolStatus, waiters: &[Waiter]) -> String {
    let mut line = format!(
        "leaktrace: pool \"{pool}\" {}/{} out",
        status.held, status.max
    );
    if status.returning > 0 {
        let _ = write!(line, ", {} returning", status.returning);
    }
    if status.waiting > 0 {
        let _ = write!(line, ", {} waiting", status.waiting);
        if let Some(oldest) = waiters.iter().find(|waiter| waiter.pool == pool) {
            let _ = write!(line, " (oldest {})", span(oldest.waited_for));
        }
    }
    let _ = write!(line, " · up {}", span(uptime()));
    line
}

/// The lines of one group, each with its line break.
///
/// With `wait_for_names` false, a stack is left out until somebody has named it: naming may read
/// megabytes of debug information.
pub(crate) fn block(group: &Group, wait_for_names: bool) -> String {
    let mut text = String::new();
    let Some(oldest) = group.holders.first() else {
        return text;
    };
    let mut first = format!("  {} × {}", group.count, state(group.kind, oldest));
    if group.younger > 0 {
        let _ = write!(first, ", {} more out from this line", group.younger);
    }
    let _ = write!(first, ", first seen {}", time_of_day(oldest.acquired_at));
    if let Some(id) = group.finding {
        let _ = write!(first, "   {id}");
    }
    text += &first;
    text += "\n";
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "      {name:<10} {value}");
    };
    match (&oldest.acquired_by, &oldest.stack) {
        (Some(site), _) => {
            let label = match &oldest.label {
                Some(label) => format!("   label \"{label}\""),
                None => String::new(),
            };
            row("acquired", format!("{site}   {}{label}", oldest.kind));
        }
        (None, Some(stack)) if wait_for_names || stack.named().is_some() => {
            row("acquired", pooled(stack));
        }
        (None, _) => row("acquired", POOLED.to_string()),
    }
    let sql = oldest.last_sql.as_deref().unwrap_or_default();
    match &oldest.last_used_by {
        Some(site) if sql.is_empty() && oldest.lent => row(
            "last used",
            format!("{site}   lent as a raw connection{}", said(oldest)),
        ),
        Some(site) => {
            let place = format!("{site}   {sql}");
            row("last used", format!("{}{}", place.trim_end(), said(oldest)));
        }
        None if !sql.is_empty() => row("last used", format!("{sql}{}", said(oldest))),
        None if oldest.server.is_some() => {
            row("last used", format!("never{}", said(oldest)));
        }
        None => {}
    }
    if let Some(server) = &oldest.server {
        if let Some(sql) = server.sql.as_deref().filter(|_| oldest.lent) {
            row("its SQL", format!("{sql}   by the server's word"));
        }
        for blocker in server.blocked_by.iter().take(BLOCKERS) {
            row("blocked by", blocker.to_string());
        }
        if let Some(left) = server
            .blocked_by
            .len()
            .checked_sub(BLOCKERS)
            .filter(|n| *n > 0)
        {
            row("blocked by", format!("{left} more"));
        }
    }
    if let Some(blocks) = &oldest.blocks {
        row("blocks", blocks.to_string());
    }
    let serving = serving(group, oldest);
    if !serving.is_empty() {
        row("serving", serving);
    }
    if let Some(stack) = &oldest.stack
        && (wait_for_names || stack.named().is_some())
        && stack.says_more_than(oldest.acquired_by.as_ref())
    {
        row("called by", stack.to_string());
    }
    if let Some(remedy) = &group.remedy {
        row("likely", remedy.clone());
    }
    text
}

/// What the server says of it, in brackets.
fn said(oldest: &Holder) -> String {
    let Some(words) = oldest.server_says() else {
        return String::new();
    };
    let server = oldest.server.as_ref();
    let waits = server.and_then(|said| said.waits_for.as_deref());
    match waits {
        Some(waits) => format!("   ({words}, waits for {waits})"),
        None => format!("   ({words})"),
    }
}

fn state(kind: Option<Kind>, oldest: &Holder) -> String {
    let held = span(oldest.held_for);
    match (oldest.phase, kind) {
        (Phase::Returning, _) => {
            let age = oldest.returning_for.unwrap_or_default();
            format!("returning for {}, was held {held}", span(age))
        }
        (Phase::LeakedOnPurpose, _) => format!("leaked on purpose, {held} ago"),
        // What it was doing when it was reported is no longer so.
        (Phase::Held, Some(Kind::ReturnedLate)) => format!("returned late, was held {held}"),
        (Phase::Held, Some(Kind::OutlivedRequest)) => format!("outlived its request, held {held}"),
        (Phase::Held, Some(_)) if oldest.is_idle_in_transaction() => format!(
            "idle in transaction {}, held {held}",
            span(oldest.activity_for)
        ),
        (Phase::Held, _) if oldest.overdue => format!("overdue, held {held}, {}", doing(oldest)),
        (Phase::Held, _) => format!("held {held}, {}", doing(oldest)),
    }
}

/// What stands for the line of a pooled statement: its caller is sqlx.
const POOLED: &str = "by a statement on the pool itself";

/// The first line of the user's code in the stack of a pooled statement.
fn pooled(stack: &Stack) -> String {
    let Some(frame) = stack.frames().first() else {
        return POOLED.to_string();
    };
    let function = match frame.function() {
        // A build with line tables only has no better name for an async function.
        name if name.starts_with('{') => String::new(),
        name => format!("   in {name}"),
    };
    match frame.location() {
        Some(location) => format!("{location}{function}   {POOLED}"),
        None => format!("{}   {POOLED}", function.trim_start()),
    }
}

fn totals(pool: u64, totals: &[SiteTotal]) -> Option<String> {
    let sites: Vec<String> = totals
        .iter()
        .filter(|total| total.pool_id == pool && total.is_worth_showing())
        .take(SITES)
        .map(|total| {
            let site = match (&total.acquired_by, &total.sql) {
                (Some(site), _) => site.short(),
                (None, Some(sql)) => crate::judge::cut(sql).into_owned(),
                (None, None) => "pooled statement".to_string(),
            };
            format!(
                "{site} {} × {} ({} after last use)",
                total.count,
                span(total.mean_hold),
                span(total.mean_after_last_use)
            )
        })
        .collect();
    (!sites.is_empty()).then(|| {
        format!(
            "  last minute, by connection time, overdue or not: {}\n",
            sites.join(" · ")
        )
    })
}

fn foot(pool: &PoolInfo) -> Option<String> {
    let mut parts = Vec::new();
    if pool.status.untracked > 0 {
        parts.push(format!("untracked {}", pool.status.untracked));
    }
    if pool.status.orphaned > 0 {
        parts.push(format!("orphaned {}", pool.status.orphaned));
    }
    if !pool.raw_handed_out.is_empty() {
        let sites: Vec<String> = pool
            .raw_handed_out
            .iter()
            .map(|site| site.to_string())
            .collect();
        parts.push(format!("raw pool handed out at {}", sites.join(", ")));
    }
    (!parts.is_empty()).then(|| format!("  {}\n", parts.join(" · ")))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _reading = Reading::begins();
        if self.pools.is_empty() {
            return f.write_str("leaktrace: no pool is watched\n");
        }
        if let Some(runtime) = &self.runtime {
            writeln!(f, "leaktrace: runtime {runtime}")?;
        }
        for pool in &self.pools {
            writeln!(
                f,
                "{}",
                status_line(&pool.name, &pool.status, &self.waiters)
            )?;
            for (_, cause) in self.causes.iter().filter(|(name, _)| *name == pool.name) {
                writeln!(f, "  {} {}: {}", cause.kind, cause.share, cause.detail)?;
            }
            let groups = self.groups.iter().filter(|group| {
                group
                    .holders
                    .first()
                    .is_some_and(|holder| holder.pool == pool.name)
            });
            for group in groups {
                f.write_str(&block(group, true))?;
            }
            for line in [totals(pool.id, &self.totals), foot(pool)]
                .into_iter()
                .flatten()
            {
                f.write_str(&line)?;
            }
        }
        let left_out = self.groups_left_out as u64 + self.not_recorded + self.findings_dropped;
        if left_out > 0 {
            writeln!(
                f,
                "  left out: {} groups; not recorded for want of room: {}; findings the sinks were too slow for: {}",
                self.groups_left_out, self.not_recorded, self.findings_dropped
            )?;
        }
        Ok(())
    }
}

impl Finding {
    /// The text below the headline.
    pub(crate) fn body(&self, wait_for_names: bool) -> String {
        let mut text = status_line(&self.pool, &self.status, &self.waiters);
        text += "\n";
        if let Some(runtime) = &self.runtime {
            let _ = writeln!(text, "  runtime {runtime}");
        }
        for cause in &self.causes {
            let _ = writeln!(text, "  {} {}: {}", cause.kind, cause.share, cause.detail);
        }
        if let Some(unexplained) = &self.unexplained {
            let _ = writeln!(text, "  {unexplained}");
        }
        for group in self.groups() {
            text += &block(&group, wait_for_names);
        }
        text += &totals(self.pool_id, &self.totals).unwrap_or_default();
        let (kind, meaning) = (self.kind, self.kind.explain());
        let _ = write!(
            text,
            "  next: docs/findings/{kind}.md of leaktrace. {meaning}"
        );
        text
    }

    /// The holders it speaks of, grouped. A finding about one bug has one group.
    fn groups(&self) -> Vec<Group> {
        // These speak of the pool; of each holder only what is true of it.
        let of_the_pool = matches!(self.kind, Kind::Exhausted | Kind::CloseBlocked);
        let verdicts = if of_the_pool {
            crate::judge::holds(&self.holders)
                .claims
                .iter()
                .map(|claim| (claim.holder, (claim.kind, None)))
                .collect()
        } else {
            let verdict = (self.kind, Some(self.id));
            self.holders
                .iter()
                .map(|holder| (holder.id, verdict))
                .collect()
        };
        let mut groups = super::group(self.holders.clone(), &verdicts, &self.waiters);
        if let ([group], false) = (groups.as_mut_slice(), of_the_pool) {
            group.count = usize::try_from(self.count).unwrap_or(usize::MAX);
            group.younger = usize::try_from(self.younger).unwrap_or(usize::MAX);
            group.remedy.clone_from(&self.remedy);
        }
        if self.runtime.is_some() {
            // While the runtime is blocked, no holder can go on: no advice for any.
            for group in &mut groups {
                group.remedy = None;
            }
        }
        groups
    }

    /// The stacks it speaks of that nobody has named yet, one a group.
    pub(crate) fn unnamed_stacks(&self) -> Vec<(Stack, Option<Location>)> {
        self.groups()
            .iter()
            .filter_map(|group| {
                let oldest = group.holders.first()?;
                Some((oldest.stack.clone()?, oldest.acquired_by.clone()))
            })
            .filter(|(stack, _)| stack.named().is_none())
            .collect()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _reading = Reading::begins();
        write!(
            f,
            "{} {} {}\n{}",
            self.kind,
            self.id,
            self.headline,
            self.body(true)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Activity;
    use crate::report::headline;
    use crate::site::Location;
    use std::time::{Duration, SystemTime};

    const SECOND: Duration = Duration::from_secs(1);

    fn idle_in_transaction() -> Holder {
        let since = SystemTime::UNIX_EPOCH;
        Holder {
            kind: crate::registry::HolderKind::Transaction,
            acquired_by: Some(Location::new("src/repo.rs", 88, 31)),
            last_used_by: Some(Location::new("src/repo.rs", 91, 22)),
            last_sql: Some("UPDATE orders SET state = ? WHERE id = ?".into()),
            held_for: SECOND * 12,
            uses: 1,
            activity: Activity::Idle { since },
            activity_for: SECOND * 11,
            in_transaction: true,
            overdue: true,
            ..Holder::harmless()
        }
    }

    fn shown(holder: Holder, kind: Kind) -> String {
        block(&Group::of(vec![holder], None, Some(kind), &[]), true)
    }

    #[test]
    fn a_block_names_both_lines_the_statement_and_the_remedy() {
        assert_eq!(
            shown(idle_in_transaction(), Kind::IdleInTransaction),
            "  1 × idle in transaction 11.0 s, held 12.0 s, first seen 00:00:00\n      \
             acquired   src/repo.rs:88:31   Transaction\n      \
             last used  src/repo.rs:91:22   UPDATE orders SET state = ? WHERE id = ?\n      \
             likely     it does something after its last use at repo.rs:91 that is not this database, \
             with the transaction open: commit before, or do it first\n"
        );
    }

    #[test]
    fn what_has_returned_is_not_said_to_be_anything_now() {
        let back = Holder {
            polled_ago: Some(SECOND * 11),
            ..idle_in_transaction()
        };
        let text = shown(back, Kind::ReturnedLate);
        assert!(text.contains("returned late, was held 12.0 s"), "{text}");
        for word in ["overdue", "idle", "polled"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn only_what_is_overdue_is_called_overdue() {
        let young = Holder {
            in_transaction: false,
            overdue: false,
            ..idle_in_transaction()
        };
        assert!(!shown(young.clone(), Kind::CloseBlocked).contains("overdue"));
        let old = Holder {
            overdue: true,
            ..young
        };
        assert!(shown(old, Kind::CloseBlocked).contains("overdue, held 12.0 s, idle for 11.0 s"));
    }

    #[test]
    fn a_pooled_statement_without_a_stack_has_words_for_its_line() {
        let pooled = Holder {
            acquired_by: None,
            last_used_by: None,
            ..idle_in_transaction()
        };
        let text = shown(pooled, Kind::HeldTooLong);
        assert!(
            text.contains("acquired   by a statement on the pool itself\n"),
            "{text}"
        );
    }

    #[test]
    fn the_last_minute_shows_what_is_worth_it_and_where_a_statement_is_cut() {
        let total = |share, sql: &str| SiteTotal {
            pool_id: 1,
            pool: "orders".into(),
            kind: crate::registry::HolderKind::Statement,
            label: None,
            acquired_by: None,
            last_used_by: None,
            sql: Some(sql.to_string()),
            count: 26,
            mean_hold: SECOND,
            mean_after_last_use: SECOND / 2,
            share,
        };
        let long = format!("SELECT {}", "a".repeat(60));
        let all = [total(0.2, &long), total(0.009, "SELECT quick")];
        let text = totals(1, &all).expect("one is worth it");
        let cut = format!("SELECT {}…", "a".repeat(53));
        assert!(
            text.contains(&format!(": {cut} 26 × 1.0 s (500 ms after")),
            "{text}"
        );
        assert!(!text.contains("quick"), "{text}");
        assert_eq!(totals(1, &all[1..]), None);
    }

    #[test]
    fn the_headline_of_a_close_counts_its_holders_once() {
        let oldest = idle_in_transaction();
        let line = |count| headline(Kind::CloseBlocked, "orders", &oldest, count);
        assert!(
            line(6).starts_with(
                "pool \"orders\": waits for 6 holders, the oldest held 12.0 s, acquired"
            )
        );
        assert!(
            line(1).starts_with("pool \"orders\": waits for one holder, held 12.0 s, acquired")
        );
    }
}
