//! What is said of each cause of an exhaustion.
//!
//! Responsible for one line each: who, where, how many. Not responsible for telling causes apart
//! (`waits`).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use super::waits::{Connecting, Deadlock};
use crate::clock::span;
use crate::registry::{Activity, Holder, Owner, Phase, PoolInfo, SiteTotal, Snapshot, Waiter};
use crate::site::{Location, text::escape_text};

pub(super) fn cycle(held: &[&Holder], snapshot: &Snapshot, deadlock: Deadlock) -> String {
    const SHOWN: usize = 4;
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    let mut unseen = 0;
    // Of a cycle of pools, every side: what they wait for is held by the others.
    let waiter_of = |holder: &Holder| {
        let mut own = snapshot.waiters.iter();
        own.find(|waiter| holder.owner.is_some() && waiter.owner == holder.owner)
    };
    let mut pools: Vec<u64> = held.iter().map(|holder| holder.pool_id).take(1).collect();
    let mut seen = 0;
    while let Some(pool) = pools.get(seen).copied() {
        seen += 1;
        let members = snapshot.holders.iter();
        for holder in members.filter(|holder| holder.pool_id == pool && holder.phase == Phase::Held)
        {
            unseen += usize::from(matches!(holder.activity, Activity::Unknown { .. }));
            let waiter = waiter_of(holder);
            *lines.entry(pair(holder, waiter)).or_default() += 1;
            let waits_in = waiter.map(|waiter| waiter.pool_id);
            pools.extend(waits_in.filter(|pool| !pools.contains(pool)));
        }
    }
    let mut text: Vec<String> = lines
        .iter()
        .take(SHOWN)
        .map(|(line, count)| format!("{count} × {line}"))
        .collect();
    if lines.len() > SHOWN {
        text.push(format!("{} more", lines.len() - SHOWN));
    }
    let doubt = match deadlock.is_certain {
        true => String::new(),
        false => format!(
            "suspected, because {unseen} were lent as raw connections and what runs there was not seen: "
        ),
    };
    format!(
        "{doubt}every connection is held by somebody who waits for another one, and nothing has moved for {}: {}",
        span(deadlock.still_for),
        text.join("; ")
    )
}

/// A user that keeps one connection while it waits for another one.
pub(super) fn nesting(nested: &[&Holder], first: &Holder, waiter: Option<&Waiter>) -> String {
    let lent = |holder: &&&Holder| matches!(holder.activity, Activity::Unknown { .. });
    let doubt = match nested.iter().filter(lent).count() {
        0 => String::new(),
        lent => {
            format!("suspected of {lent} lent as raw connections, where what runs was not seen: ")
        }
    };
    format!("{doubt}{}", pair(first, waiter))
}

/// Who holds what, taken where, last used where, and waits where.
pub(super) fn pair(holder: &Holder, waiter: Option<&Waiter>) -> String {
    let who = holder
        .scope
        .as_ref()
        .map_or("a task", |scope| scope.route.as_str());
    let taken = holder.acquired_by.as_ref().map_or_else(
        || "on the pool itself".to_string(),
        |site| format!("at {site}"),
    );
    let used = match &holder.last_used_by {
        Some(site) => format!(", last used at {site}"),
        None => String::new(),
    };
    let waits = match waiter {
        Some(waiter) => format!(
            " and waits for another of pool \"{}\" at {}",
            waiter.pool,
            site_of_waiter(waiter)
        ),
        None => String::new(),
    };
    format!(
        "{who} holds one of pool \"{}\" taken {taken}{used}{waits}",
        holder.pool
    )
}

pub(super) fn site_of_waiter(waiter: &Waiter) -> String {
    match &waiter.acquired_by {
        Some(site) => site.to_string(),
        None => "a statement on the pool itself".to_string(),
    }
}

/// Where a connection was taken: a line, else the statement that took it.
fn place(line: Option<&Location>, sql: Option<&str>) -> String {
    match (line, sql) {
        (Some(line), _) => line.to_string(),
        (None, Some(sql)) => cut(sql).into_owned(),
        (None, None) => "a pooled statement".to_string(),
    }
}

/// The lines that hold most of them, and for how long.
pub(super) fn sites(holders: &[&Holder]) -> String {
    let oldest = holders.iter().map(|holder| holder.held_for).max();
    let oldest = span(oldest.unwrap_or_default());
    format!("the oldest for {oldest}: {}", taken_at(holders))
}

/// The lines that hold most of them, each with a count.
fn taken_at(holders: &[&Holder]) -> String {
    const SHOWN: usize = 3;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for holder in holders {
        let site = place(holder.acquired_by.as_ref(), holder.last_sql.as_deref());
        *counts.entry(site).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown: Vec<String> = counts
        .iter()
        .take(SHOWN)
        .map(|(site, count)| format!("{site} ({count})"))
        .collect();
    shown.join(", ")
}

pub(super) fn on_the_way_back(returning: &[&Holder]) -> String {
    let mut text = "on the way back to the pool".to_string();
    // What it was doing when it was dropped is what the server may still do.
    let oldest = returning.iter().max_by_key(|holder| holder.returning_for);
    if let Some(age) = oldest.and_then(|holder| holder.returning_for) {
        text += &format!(", the oldest for {}", span(age));
    }
    if let Some(sql) = oldest.and_then(|holder| holder.last_sql.as_deref()) {
        text += &format!(", e.g. after {}", cut(sql));
    }
    text
}

/// As much of a statement as stands among other words.
pub(crate) fn cut(sql: &str) -> Cow<'_, str> {
    escape_text(sql, 60)
}

fn holders(count: usize) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} young holder{s}")
}

/// What the young holders do. The pool is called small only when it is full and most of them work.
fn at_work(young: &[&Holder], places: &Places) -> String {
    let (idle, rest): (Vec<&Holder>, Vec<&Holder>) = young
        .iter()
        .copied()
        .partition(|holder| holder.waits_for_its_owner());
    let unseen = rest
        .iter()
        .filter(|holder| matches!(holder.activity, Activity::Unknown { .. }))
        .count();
    let working = rest.len() - unseen;
    let mut parts = Vec::new();
    let mut add = |count: usize, doing: String| {
        let who = match parts.is_empty() {
            true => holders(count),
            false => count.to_string(),
        };
        if count > 0 {
            parts.push(format!("{who} {doing}"));
        }
    };
    let resting = || {
        let oldest = idle.iter().map(|holder| holder.held_for).max();
        format!(
            "on which no statement runs, taken at {}, the oldest {} ago",
            taken_at(&idle),
            span(oldest.unwrap_or_default())
        )
    };
    let is_busy = working * 2 > young.len();
    if is_busy {
        add(working, "at work".to_string());
        add(idle.len(), resting());
    } else {
        add(idle.len(), resting());
        add(working, "at work".to_string());
    }
    add(unseen, "lent raw, where what runs was not seen".to_string());
    let parts = parts.join(", ");
    match (is_busy, places.free) {
        (true, 0) => {
            format!("{parts}: the pool is small for this load, or its statements are slow")
        }
        (true, _) => format!("{parts}; {places}"),
        (false, _) => format!("{parts}; not past the threshold yet"),
    }
}

/// What of a pool is not out, as it was seen while somebody waited.
pub(super) struct Places {
    /// Neither held nor on the way back.
    pub(super) free: u32,
    /// How many of those are being opened or tested, or used past leaktrace.
    pub(super) in_progress: u32,
    /// For how long at least one was at every look.
    pub(super) in_progress_for: Option<Duration>,
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.free.saturating_sub(self.in_progress) {
            0 => f.write_str("no place is free")?,
            1 => f.write_str("1 place is free")?,
            free => write!(f, "{free} places are free")?,
        }
        match self.in_progress {
            0 => f.write_str(", none in the opening or test")?,
            count => write!(f, ", {count} in the opening or test")?,
        }
        match self.in_progress_for {
            Some(time) => write!(f, " for {} at least", span(time)),
            None => Ok(()),
        }
    }
}

/// The honest sentence where there is no cause.
pub(super) fn unexplained(places: &Places, connecting: &Connecting) -> String {
    let attempt = match connecting {
        Connecting::Asked => {
            return "places are left, so it probably waited for a connection to be opened or tested; \
                    an attempt of ours to connect is under way"
                .to_string();
        }
        Connecting::Works => "; an attempt of ours to connect came through",
        Connecting::NotTried | Connecting::Fails(_) => "",
    };
    format!("nothing that leaktrace sees explains it: {places}{attempt}")
}

pub(super) fn saturated(
    pool: &PoolInfo,
    young: &[&Holder],
    totals: &[SiteTotal],
    waiters: &[&Waiter],
    places: &Places,
) -> String {
    let mut text = at_work(young, places);
    let top: Vec<String> = totals
        .iter()
        .filter(|total| total.pool_id == pool.id && total.is_worth_showing())
        .take(3)
        .map(|total| {
            let site = place(total.acquired_by.as_ref(), total.sql.as_deref());
            format!("{site} {} × {}", total.count, span(total.mean_hold))
        })
        .collect();
    if !top.is_empty() {
        text += &format!(
            "; most connection time in the last minute, overdue or not: {}",
            top.join(", ")
        );
    }
    let mut routes: HashMap<(&str, Owner), usize> = HashMap::new();
    for waiter in waiters {
        if let (Some(scope), Some(owner)) = (&waiter.scope, waiter.owner) {
            *routes.entry((scope.route.as_str(), owner)).or_default() += 1;
        }
    }
    if let Some(((route, _), count)) = routes.into_iter().max_by_key(|(_, count)| *count)
        && count >= 3
        && count * 2 > waiters.len()
    {
        text += &format!(
            "; one request of {route} is {count} of the {} that wait: it fans out",
            waiters.len()
        );
    }
    text
}
