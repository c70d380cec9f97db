//! Whether what was promised was met in this run.
//!
//! Responsible for comparing tables with the limits, each with its figure. Not responsible for
//! measuring.

use super::table::{Row, Table, nanos};

/// One line: `S1 met: …` or `S1 missed: …`.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) met: bool,
    pub(crate) text: String,
}

impl Target {
    fn new(name: &'static str, met: bool, text: String) -> Self {
        Self { name, met, text }
    }

    pub(crate) fn line(&self) -> String {
        let word = match self.met {
            true => "met",
            false => "missed",
        };
        format!("{} {word}: {}", self.name, self.text)
    }
}

const WATCHED: &str = "leaktrace, watched pool";
const OWN: &str = "leaktrace, own PoolOptions";

/// `at most` so many nanoseconds more than raw sqlx.
fn added(name: &'static str, table: &Table, row: &str, detail: &str, most: f64) -> Option<Target> {
    let row = table.row(row, detail, false)?;
    let added = table.added(row);
    Some(Target::new(
        name,
        added <= most,
        format!(
            "{detail} adds {} of at most {}: {}",
            nanos(added),
            nanos(most),
            table.title
        ),
    ))
}

/// S1, a table of one task, warm.
pub(crate) fn warm(table: &Table) -> Vec<Target> {
    [
        added("S1", table, WATCHED, "backtrace", 60.0),
        added("S1", table, WATCHED, "location", 40.0),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// S1 of the row that the self-check slowed down.
pub(crate) fn delayed(table: &Table) -> Option<Target> {
    added("S1", table, "leaktrace, 200 ns added", "backtrace", 60.0)
}

pub(crate) fn cold(table: &Table) -> Option<Target> {
    added("S1", table, WATCHED, "backtrace", 500.0)
}

/// Throughput of many tasks, as a part of raw sqlx's.
pub(crate) fn throughput(table: &Table) -> Option<Target> {
    let row = table.row(WATCHED, "backtrace", false)?;
    let part = table.rows[0].median() / row.median();
    Some(Target::new(
        "S1",
        part >= 0.97,
        format!(
            "backtrace reaches {part:.2} of raw throughput, at least 0.97: {}",
            table.title
        ),
    ))
}

pub(crate) fn bypass(table: &Table) -> Option<Target> {
    let raw = table.row("raw sqlx", "-", true)?.median();
    let ours = table.row(OWN, "backtrace", true)?.median();
    Some(Target::new(
        "S3",
        raw / ours >= 20.0,
        format!(
            "own PoolOptions at backtrace {} beside raw defaults {}: {:.1} times faster, at least 20: {}",
            nanos(ours),
            nanos(raw),
            raw / ours,
            table.title
        ),
    ))
}

pub(crate) fn late(table: &Table) -> Vec<Target> {
    let most = 10e6;
    let target = |row: &Row| {
        let worst = row.quantile(1.0);
        Target::new(
            "S4",
            worst <= most,
            format!(
                "{}: at the latest {} after the threshold, at most 10 ms",
                row.name,
                nanos(worst)
            ),
        )
    };
    table.rows.iter().map(target).collect()
}

pub(crate) fn naming(table: &Table) -> Target {
    let ratio = table.ratio(&table.rows[1]);
    Target::new(
        "S5",
        ratio <= 1.2,
        format!(
            "p99 {} while stacks are named, {} without: {ratio:.2}, at most 1.2",
            nanos(table.rows[1].median()),
            nanos(table.rows[0].median())
        ),
    )
}

pub(crate) fn copies(table: &Table) -> Option<Target> {
    let time = table.rows.first()?.median();
    Some(Target::new(
        "S6",
        time <= 2e6,
        format!("10 000 holders are copied in {}, at most 2 ms", nanos(time)),
    ))
}

pub(crate) fn layer(table: &Table) -> Vec<Target> {
    let of = |detail: &str| table.rows.iter().find(|row| row.detail == detail);
    let off = of("off").map(|row| {
        let added = table.added(row);
        Target::new(
            "S7",
            added <= 10.0,
            format!("the layer at off adds {} a request, one load", nanos(added)),
        )
    });
    let on = of("backtrace").map(|row| {
        let added = table.added(row);
        Target::new(
            "S7",
            added <= 150.0,
            format!(
                "the layer at backtrace adds {} a request, at most 150 ns",
                nanos(added)
            ),
        )
    });
    off.into_iter().chain(on).collect()
}
