//! Masks what differs from run to run: lines, durations, times of day.

/// `src/x.rs:12:3` becomes `src/x.rs:LINE`, `41.3 s` becomes `TIME`, `02:41:07` becomes `CLOCK`.
pub(crate) fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let fresh = !out.ends_with(|c: char| c.is_alphanumeric() || c == '.');
        let digits = &rest[..rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))
            .unwrap_or(rest.len())];
        if first.is_ascii_digit() && out.ends_with(".rs:") {
            out += "LINE";
            rest = &rest[digits.trim_end_matches(':').len()..];
        } else if first.is_ascii_digit()
            && fresh
            && digits.trim_end_matches(':').matches(':').count() == 2
        {
            out += "CLOCK";
            rest = &rest[digits.len()..];
        } else if first.is_ascii_digit() && fresh {
            let after = &rest[digits.len()..];
            let unit = [" µs", " ms", " s", " min", " h"].into_iter().find(|unit| {
                after.starts_with(unit)
                    && !after[unit.len()..].starts_with(|c: char| c.is_alphanumeric())
            });
            match unit {
                Some(unit) => {
                    out += "TIME";
                    rest = &after[unit.len()..];
                }
                None => {
                    out += digits;
                    rest = after;
                }
            }
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

#[test]
fn only_what_differs_from_run_to_run_is_masked() {
    assert_eq!(
        masked(
            "7 × idle in transaction 41.1 s, first seen 02:41:07   #a3f\n src/a.rs:88:31   2/10 out (9 ms) p1 3 s"
        ),
        "7 × idle in transaction TIME, first seen CLOCK   #a3f\n src/a.rs:LINE   2/10 out (TIME) p1 TIME"
    );
}
