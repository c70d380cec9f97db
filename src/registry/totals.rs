//! Connection time per call site over the last minute.
//!
//! Responsible for what live holders cannot show: ten holders of 300 ms are never overdue and still
//! the reason why a pool of ten serves 33 requests a second. Not responsible for live holders.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;

use super::HolderKind;
use super::cell::{Cell, Finished};
use super::pool::PoolRecord;
use crate::clock::Moment;
use crate::site::{CallSite, Location, SqlText, text};
use crate::sync::atomic::{AtomicU64, Ordering};

/// What one call site has cost in the last minute.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SiteTotal {
    /// A later pool may get the name of one that is gone.
    #[cfg_attr(feature = "json", serde(skip))]
    pub(crate) pool_id: u64,
    /// The pool's name.
    pub pool: String,
    /// What was checked out.
    pub kind: HolderKind,
    /// The label of the pool handle.
    pub label: Option<String>,
    /// The line that checked it out.
    pub acquired_by: Option<Location>,
    /// The line that last used it.
    pub last_used_by: Option<Location>,
    /// The statement, for a pooled one.
    pub sql: Option<String>,
    /// How many were released.
    pub count: u64,
    /// How long they were held on average.
    #[cfg_attr(
        feature = "json",
        serde(rename = "mean_hold_ms", serialize_with = "crate::clock::json::millis")
    )]
    pub mean_hold: Duration,
    /// How much of that was after the last use.
    #[cfg_attr(
        feature = "json",
        serde(
            rename = "mean_after_last_use_ms",
            serialize_with = "crate::clock::json::millis"
        )
    )]
    pub mean_after_last_use: Duration,
    /// How much that was of the connection time that the pool could give in that minute, or since it
    /// is watched: 1 when all its connections were out for this site all the time.
    pub share: f64,
}

impl SiteTotal {
    /// Whether it is anything beside what the pool could give.
    pub(crate) fn is_worth_showing(&self) -> bool {
        self.share >= 0.01
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    pool: u64,
    kind: HolderKind,
    label: Option<&'static str>,
    acquired_by: Option<CallSite>,
    last_used_by: Option<CallSite>,
    /// Only where there is no line: the address of the interned text.
    sql: Option<usize>,
}

struct Entry {
    pool: String,
    sql: Option<Arc<SqlText>>,
    slices: [Slice; SLICES],
}

#[derive(Clone, Copy, Default)]
struct Slice {
    /// Which slice of time this is; an older one is overwritten.
    number: u64,
    count: u64,
    held: Duration,
    after_last_use: Duration,
}

impl Slice {
    fn add(&mut self, held: Duration, after_last_use: Duration) {
        self.count += 1;
        self.held += held;
        self.after_last_use += after_last_use;
    }
}

impl Key {
    fn of(pool: &PoolRecord, finished: &Finished) -> Self {
        let sql = (finished.last_sql.as_ref()).filter(|_| finished.acquired_by.is_none());
        Self {
            pool: pool.id,
            kind: finished.kind,
            label: finished.label,
            acquired_by: finished.acquired_by,
            last_used_by: finished.last_used_by,
            sql: sql.map(|sql| Arc::as_ptr(sql).addr()),
        }
    }
}

/// What one site has cost, on its way to a reader.
struct Sum {
    pool: String,
    sql: Option<Arc<SqlText>>,
    slice: Slice,
}

impl Sum {
    /// `could_give`: the connection time of the whole pool.
    fn total(self, key: Key, could_give: Duration) -> Option<SiteTotal> {
        let count = u32::try_from(self.slice.count)
            .ok()
            .filter(|count| *count > 0)?;
        Some(SiteTotal {
            pool_id: key.pool,
            pool: self.pool,
            kind: key.kind,
            label: key
                .label
                .map(|label| text::escape_text(label, 100).into_owned()),
            acquired_by: key.acquired_by.map(Location::from),
            last_used_by: key.last_used_by.map(Location::from),
            sql: self.sql.map(|sql| sql.masked.to_string()),
            count: self.slice.count,
            mean_hold: self.slice.held / count,
            mean_after_last_use: self.slice.after_last_use / count,
            share: match could_give.is_zero() {
                true => 0.0,
                false => self.slice.held.as_secs_f64() / could_give.as_secs_f64(),
            },
        })
    }
}

const SLICES: usize = 6;
const SLICE: Duration = Duration::from_secs(10);
/// For so long a site is remembered.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

pub(super) struct Totals {
    entries: DashMap<Key, Entry>,
    /// How many checkouts began to move from their cells to the entries, and how many are there: while
    /// the two differ, some are in neither.
    leaving: AtomicU64,
    arrived: AtomicU64,
    dropped: AtomicU64,
}

impl Totals {
    /// The most sites that are kept.
    const KEPT: usize = 1000;

    pub(super) fn new() -> Self {
        Self {
            entries: DashMap::new(),
            leaving: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Ends the record of a cell, and counts it. Answers what is left of it.
    pub(super) fn take(&self, cell: &Cell) -> Option<Finished> {
        self.leaving.fetch_add(1, Ordering::SeqCst);
        let finished = cell.finish();
        if let Some(finished) = &finished {
            self.add(&cell.pool, finished);
        }
        self.arrived.fetch_add(1, Ordering::SeqCst);
        finished
    }

    fn add(&self, pool: &PoolRecord, finished: &Finished) {
        let key = Key::of(pool, finished);
        let sql = key.sql.and(finished.last_sql.as_ref());
        let number = slice_number(finished.released_at);
        if let Some(mut entry) = self.entries.get_mut(&key) {
            entry.add(number, finished.held_for, finished.after_last_use);
            return;
        }
        if self.entries.len() >= Self::KEPT {
            self.entries.retain(|_, entry| entry.sum(number).count > 0);
            if self.entries.len() >= Self::KEPT {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        self.entries
            .entry(key)
            .or_insert_with(|| Entry {
                pool: pool.name.clone(),
                sql: sql.cloned(),
                slices: [Slice::default(); SLICES],
            })
            .add(number, finished.held_for, finished.after_last_use);
    }

    /// The sites of the last minute, most connection time first. `cells`: those that may be on their
    /// way back; a checkout counts from its release on. `could_give`: the connection time of a whole
    /// pool, by its id.
    pub(super) fn view(
        &self,
        now: Moment,
        cells: &dyn Fn() -> Vec<Arc<Cell>>,
        could_give: &dyn Fn(u64) -> Duration,
    ) -> Vec<SiteTotal> {
        /// Under endless churn no look is exact.
        const LOOKS: usize = 100;
        let mut sums = HashMap::new();
        for _ in 0..LOOKS {
            let arrived = self.arrived.load(Ordering::SeqCst);
            sums = self.sums(now, &cells());
            if self.leaving.load(Ordering::SeqCst) == arrived {
                break;
            }
            std::thread::yield_now();
        }
        let mut totals: Vec<(Duration, SiteTotal)> = sums
            .into_iter()
            .filter_map(|(key, sum)| {
                let could_give = could_give(key.pool);
                Some((sum.slice.held, sum.total(key, could_give)?))
            })
            .collect();
        totals.sort_by_key(|(held, _)| std::cmp::Reverse(*held));
        totals.into_iter().map(|(_, total)| total).collect()
    }

    fn sums(&self, now: Moment, cells: &[Arc<Cell>]) -> HashMap<Key, Sum> {
        let number = slice_number(now);
        let mut sums: HashMap<Key, Sum> = self
            .entries
            .iter()
            .map(|entry| {
                let sum = Sum {
                    pool: entry.pool.clone(),
                    sql: entry.sql.clone(),
                    slice: entry.sum(number),
                };
                (entry.key().clone(), sum)
            })
            .collect();
        for cell in cells {
            let Some(finished) = cell.account() else {
                continue;
            };
            let key = Key::of(&cell.pool, &finished);
            let sql = key.sql.and(finished.last_sql.clone());
            let sum = sums.entry(key).or_insert_with(|| Sum {
                pool: cell.pool.name.clone(),
                sql,
                slice: Slice::default(),
            });
            sum.slice.add(finished.held_for, finished.after_last_use);
        }
        sums
    }

    /// How many checkouts were not counted because there was no room for their site.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn slice_number(now: Moment) -> u64 {
    now.as_nanos() / SLICE.as_nanos() as u64
}

impl Entry {
    fn add(&mut self, number: u64, held: Duration, after_last_use: Duration) {
        let slice = &mut self.slices[number as usize % SLICES];
        if slice.number != number {
            *slice = Slice {
                number,
                ..Slice::default()
            };
        }
        slice.add(held, after_last_use);
    }

    fn sum(&self, now: u64) -> Slice {
        let mut sum = Slice::default();
        for slice in &self.slices {
            if slice.number + (SLICES as u64) > now {
                sum.count += slice.count;
                sum.held += slice.held;
                sum.after_last_use += slice.after_last_use;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_less_than_a_hundredth_of_what_the_pool_could_give_is_not_worth_showing() {
        let second = Duration::from_secs(1);
        let share = |held, could_give| {
            let sum = Sum {
                pool: String::new(),
                sql: None,
                slice: Slice {
                    number: 0,
                    count: 10,
                    held,
                    after_last_use: Duration::ZERO,
                },
            };
            let key = Key {
                pool: 1,
                kind: HolderKind::Connection,
                label: None,
                acquired_by: None,
                last_used_by: None,
                sql: None,
            };
            sum.total(key, could_give).expect("ten of them")
        };
        // Ten connections for a minute.
        let could_give = second * 600;
        assert!(share(second * 6, could_give).is_worth_showing());
        assert!(!share(second * 5, could_give).is_worth_showing());
        assert_eq!(share(second * 300, could_give).share, 0.5);
        assert!(!share(second, Duration::ZERO).is_worth_showing(), "no pool");
    }

    #[test]
    fn what_is_older_than_a_minute_no_longer_counts() {
        let mut entry = Entry {
            pool: String::new(),
            sql: None,
            slices: [Slice::default(); SLICES],
        };
        let second = Duration::from_secs(1);
        entry.add(10, second, second / 2);
        entry.add(12, second, second / 2);
        assert_eq!(entry.sum(12).count, 2);
        assert_eq!(entry.sum(16).count, 1, "slice 10 is a minute old");
        assert_eq!(entry.sum(18).count, 0);
        entry.add(16, second, second);
        assert_eq!(
            entry.sum(16).count,
            2,
            "slice 16 took the place of slice 10"
        );
        assert_eq!(entry.sum(16).held, second * 2);
    }
}
