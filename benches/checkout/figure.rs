//! The picture of what a checkout costs, by design.
//!
//! Responsible for one SVG of bars on a logarithmic scale. Not responsible for figures.

use std::fmt::Write as _;

use super::table::{Table, nanos};

const LEFT: f64 = 390.0;
const WIDTH: f64 = 910.0;
const BAR: f64 = 22.0;
const STEP: f64 = 34.0;
const TOP: f64 = 64.0;
/// The left end of the scale, in nanoseconds.
const LEAST: f64 = 100.0;

/// The bars of one table.
pub(crate) fn svg(table: &Table) -> String {
    let most = table
        .rows
        .iter()
        .map(|row| row.median())
        .fold(1_000.0, f64::max);
    let decades = (most / LEAST).log10().ceil();
    let room = WIDTH - LEFT - 90.0;
    let x = |value: f64| LEFT + room * ((value / LEAST).max(1.0).log10() / decades);
    let bottom = TOP + STEP * table.rows.len() as f64;
    let height = bottom + 40.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>What a checkout costs</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\" fill=\"#1a1a1a\">What a checkout costs (logarithmic)</text>\n\
         <text x=\"16\" y=\"46\" fill=\"#555555\">{}; {}; medians</text>\n",
        table.title, table.settings
    );
    let mut tick = LEAST;
    while tick <= LEAST * 10_f64.powf(decades) * 1.01 {
        let at = x(tick);
        let _ = write!(
            out,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555555\">{}</text>\n",
            bottom + 20.0,
            nanos(tick).replace(".00", "").replace(".0", "")
        );
        tick *= 10.0;
    }
    for (index, row) in table.rows.iter().enumerate() {
        let y = TOP + STEP * index as f64 + (STEP - BAR) / 2.0;
        let end = x(row.median());
        let color = match row.name.starts_with("leaktrace") {
            true => "#2f6f9f",
            false => "#a0a0a0",
        };
        let test = match row.test_before_acquire {
            Some(true) => ", test on",
            _ => "",
        };
        let detail = match row.detail.as_str() {
            "-" => String::new(),
            detail => format!(", {detail}"),
        };
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#1a1a1a\">{}{detail}{test}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{color}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#1a1a1a\">{}</text>\n",
            LEFT - 8.0,
            y + BAR * 0.72,
            row.name,
            (end - LEFT).max(1.0),
            end + 6.0,
            y + BAR * 0.72,
            nanos(row.median())
        );
    }
    out += "</svg>\n";
    out
}
