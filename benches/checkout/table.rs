//! Rows of figures, and how they are printed.
//!
//! Responsible for medians, spreads and ratios, as text and as Markdown. Not responsible for where
//! the figures come from.

use std::fmt::Write as _;
use std::time::Duration;

/// One row: its settings, and a figure in nanoseconds for each round.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) test_before_acquire: Option<bool>,
    pub(crate) detail: String,
    pub(crate) nanos: Vec<f64>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            test_before_acquire: None,
            detail: "-".to_string(),
            nanos: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, time: Duration, count: u32) {
        self.nanos.push(time.as_nanos() as f64 / f64::from(count));
    }

    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.nanos.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            len => sorted[((len - 1) as f64 * part).round() as usize],
        }
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Rows that were measured in the same, interleaved rounds. The first is what the others are
/// compared with.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// What every row of it has in common.
    pub(crate) title: String,
    /// Subscriber and threads.
    pub(crate) settings: String,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn row(&self, name: &str, detail: &str, test: bool) -> Option<&Row> {
        self.rows.iter().find(|row| {
            row.name == name && row.detail == detail && row.test_before_acquire == Some(test)
        })
    }

    /// How much more than the first row, in nanoseconds.
    pub(crate) fn added(&self, row: &Row) -> f64 {
        // Round by round, so that what disturbs a round disturbs both sides of a difference.
        let mut added = Row::new("");
        added.nanos = row
            .nanos
            .iter()
            .zip(&self.rows[0].nanos)
            .map(|(one, base)| one - base)
            .collect();
        added.median()
    }

    pub(crate) fn ratio(&self, row: &Row) -> f64 {
        row.median() / self.rows[0].median()
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("**{}** ({})\n\n", self.title, self.settings);
        out += "| | test before acquire | detail | median | p10 to p90 | added | ratio |\n";
        out += "|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let test = match row.test_before_acquire {
                Some(true) => "on",
                Some(false) => "off",
                None => "-",
            };
            let _ = writeln!(
                out,
                "| {} | {test} | {} | {} | {} to {} | {} | {:.2} |",
                row.name,
                row.detail,
                nanos(row.median()),
                nanos(row.quantile(0.1)),
                nanos(row.quantile(0.9)),
                signed(self.added(row)),
                self.ratio(row),
            );
        }
        out
    }

    pub(crate) fn text(&self) -> String {
        let mut out = format!("{} ({})\n", self.title, self.settings);
        let _ = writeln!(
            out,
            "  {:<44} {:>4} {:<10} {:>10} {:>22} {:>10} {:>7}",
            "", "test", "detail", "median", "p10 .. p90", "added", "ratio"
        );
        for row in &self.rows {
            let test = match row.test_before_acquire {
                Some(true) => "on",
                Some(false) => "off",
                None => "-",
            };
            let _ = writeln!(
                out,
                "  {:<44} {test:>4} {:<10} {:>10} {:>22} {:>10} {:>7.2}",
                row.name,
                row.detail,
                nanos(row.median()),
                format!(
                    "{} .. {}",
                    nanos(row.quantile(0.1)),
                    nanos(row.quantile(0.9))
                ),
                signed(self.added(row)),
                self.ratio(row),
            );
        }
        out
    }
}

/// `840 ns`, `3.49 µs`, `1.2 ms`.
pub(crate) fn nanos(nanos: f64) -> String {
    match nanos.abs() {
        size if size.is_nan() => "-".to_string(),
        size if size < 1_000.0 => format!("{nanos:.0} ns"),
        size if size < 10_000.0 => format!("{:.2} µs", nanos / 1e3),
        size if size < 1_000_000.0 => format!("{:.1} µs", nanos / 1e3),
        _ => format!("{:.2} ms", nanos / 1e6),
    }
}

fn signed(value: f64) -> String {
    match value >= 0.0 {
        true => format!("+{}", nanos(value)),
        false => nanos(value),
    }
}
