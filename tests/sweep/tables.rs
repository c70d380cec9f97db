//! What a sweep found, counted.

use std::io::Write;

use leaktrace::{Finding, Kind};

use crate::support::Db;

/// One operation on one database.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Cut at the k-th poll, and at a random time.
    pub(crate) polls: usize,
    pub(crate) times: usize,
    /// After how many cuts the next borrower was not clean.
    pub(crate) dirty: usize,
    /// How often the caller was told something else than what is there.
    pub(crate) lies: usize,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) db: Db,
    pub(crate) thorough: bool,
    /// sqlx has lost its only permit, and the rest of the sweep was left out.
    pub(crate) lost_a_permit: bool,
    rows: Vec<Row>,
    random: u64,
}

impl Table {
    pub(crate) fn new(db: Db, thorough: bool) -> Self {
        Self {
            db,
            thorough,
            lost_a_permit: false,
            rows: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// How often the polls of one operation are counted through. SQLite is quick, and its thread is
    /// often done before the next poll.
    pub(crate) fn rounds(&self) -> usize {
        match self.db {
            _ if !self.thorough => 1,
            Db::Postgres | Db::MySql => 3,
            Db::Sqlite | Db::Any => 20,
        }
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn cuts(&self) -> usize {
        self.rows.iter().map(|row| row.polls + row.times).sum()
    }

    /// A number below `end`; the same ones in every run.
    pub(crate) fn random(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }

    /// Only what was provoked may be found.
    pub(crate) fn findings(&self, all: &[Finding]) {
        for finding in all {
            // Scripts are cut between their BEGIN and their COMMIT.
            let provoked = [Kind::CommitUnknown, Kind::DirtyReturn, Kind::StuckReturn];
            assert!(provoked.contains(&finding.kind), "{}: {finding}", self.db);
        }
    }

    pub(crate) fn must_be_clean(&self) {
        for row in &self.rows {
            let what = format!("{} on {}: {row:?}", row.name, self.db);
            assert!(row.polls + row.times > 0, "nothing was cut: {what}");
            assert_eq!((row.dirty, row.lies), (0, 0), "{what}");
        }
    }

    pub(crate) fn must_show_defects(&self) {
        let dirty: usize = self.rows.iter().map(|row| row.dirty).sum();
        assert!(dirty > 0, "{}: the sweep finds nothing on sqlx", self.db);
    }

    pub(crate) fn print(of: &str, tables: &[Self]) {
        let mut text =
            format!("\ncut points of {of} (k-th poll + random time; D: dirty, L: lies)\n");
        text += &format!("{:<34}", "");
        for table in tables {
            text += &format!("{:>22}", table.db.to_string());
        }
        text += "\n";
        let longest = tables.iter().max_by_key(|table| table.rows.len());
        for (at, row) in longest
            .iter()
            .flat_map(|table| table.rows.iter().enumerate())
        {
            text += &format!("{:<34}", row.name);
            for table in tables {
                let Some(row) = table.rows.get(at) else {
                    continue;
                };
                let mut cell = format!("{} + {}", row.polls, row.times);
                if row.dirty > 0 {
                    cell += &format!(" {}D", row.dirty);
                }
                if row.lies > 0 {
                    cell += &format!(" {}L", row.lies);
                }
                text += &format!("{cell:>22}");
            }
            text += "\n";
        }
        let cuts: usize = tables.iter().map(Self::cuts).sum();
        // Not `eprintln!`: the test harness would swallow it when the test passes.
        let _ = writeln!(std::io::stderr(), "{text}{cuts} cut points in all");
    }
}
