//! The tables of a run, into docs/performance.md.
//!
//! Responsible for replacing what stands between two marks, and nothing outside of them.

use std::fs;
use std::path::Path;

use super::figure;
use super::table::Table;
use super::targets::Target;

const BEGIN: &str = "<!-- scripts/bench --write: from here -->";
const END: &str = "<!-- scripts/bench --write: to here -->";

pub(crate) fn write(
    tables: &[Table],
    targets: &[Target],
) -> Result<(), Box<dyn std::error::Error>> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let path = docs.join("performance.md");
    let page = fs::read_to_string(&path)?;
    let (before, rest) = page
        .split_once(BEGIN)
        .ok_or("docs/performance.md has lost its marks")?;
    let (_, after) = rest
        .split_once(END)
        .ok_or("docs/performance.md has lost its marks")?;
    let mut out = format!("{before}{BEGIN}\n\n");
    for table in tables {
        out += &table.markdown();
        out += "\n";
    }
    for target in targets {
        out += &format!("- {}\n", target.line());
    }
    out += &format!("\n{END}{after}");
    fs::write(&path, out)?;
    fs::write(docs.join("checkout-cost.svg"), figure::svg(&tables[0]))?;
    println!("\nwritten: docs/performance.md, docs/checkout-cost.svg");
    Ok(())
}
