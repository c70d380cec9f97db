//! What `docs/monitoring` says in files: each name is a metric, each link leads somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use leaktrace::Kind;
use leaktrace::metrics::METRICS;
use serde_json::Value;

fn read(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("docs/monitoring")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of metrics in a text: words of ours, without what Prometheus puts behind histograms.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'))
        .filter(|word| word.starts_with("leaktrace_") || word.starts_with("db_client_connection_"))
        .map(|word| {
            let ends = ["_bucket", "_sum", "_seconds_count"];
            let end = ends.iter().find(|end| word.ends_with(**end));
            end.map_or(word, |end| word.trim_end_matches(end))
                .trim_end_matches("_seconds")
                .to_string()
        })
        .collect()
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_there_are() {
    let known: BTreeSet<String> = METRICS
        .iter()
        .flat_map(|metric| {
            let name = metric.name.replace('.', "_");
            [
                name.clone(),
                format!("{name}_total"),
                format!("{name}_ratio"),
            ]
        })
        .chain(
            METRICS
                .iter()
                .flat_map(|metric| metric.labels)
                .map(|label| label.replace('.', "_")),
        )
        // As it stands in `named`, which takes units away.
        .chain(["leaktrace_oldest_hold".to_string()])
        .collect();
    for file in ["alerts.yml", "recording.yml", "dashboard.json"] {
        let text = read(file);
        let found = named(&text);
        assert!(found.len() > 4, "{file}: {found:?}");
        let unknown: Vec<_> = found.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn each_alert_is_explained_and_leads_to_a_page_that_there_is() {
    let readme = read("README.md");
    let alerts = read("alerts.yml");
    let names: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() >= 6, "{names:?}");
    for name in &names {
        assert!(
            readme.contains(&format!("| `{name}` |")),
            "README.md does not explain {name}"
        );
    }
    let tests = read("tests.yml");
    for name in names {
        let tested = tests.matches(&format!("alertname: {name}\n")).count();
        assert!(tested >= 2, "tests.yml has no case, or no twin, of {name}");
    }
    for word in alerts.split("docs/findings/").skip(1) {
        let page = word.split(".md").next().unwrap_or_default();
        assert!(Kind::ALL.iter().any(|kind| kind.as_str() == page), "{page}");
    }
}

#[test]
fn each_panel_of_the_dashboard_asks_for_something_and_says_what() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() >= 8);
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            panel["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{title}"
        );
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            assert!(
                target["expr"].as_str().is_some_and(|expr| !expr.is_empty()),
                "{title}"
            );
        }
    }
}
