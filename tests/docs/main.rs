//! The documentation says what the code does.
//!
//! Responsible for what can be compared: the table of variables, the pages of findings, the Rust in
//! the pages, the reports in them, links between files. Not responsible for prose.

#[path = "../support/mod.rs"]
mod support;

#[path = "../reports/mask.rs"]
mod mask;

mod snippets;

use std::fs;
use std::path::{Path, PathBuf};

use leaktrace::Kind;
use leaktrace::config::VARIABLES;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    pages.extend(files("docs", "md"));
    pages.extend(files("docs/findings", "md"));
    pages.extend(files("docs/monitoring", "md"));
    pages
}

/// The blocks of that language, each with the number of its first line.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(word)) => open = Some((number + 1, format!("{word}\n"))),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
        .into_iter()
        .filter_map(|(number, block)| {
            let (word, code) = block.split_once('\n')?;
            (word == language).then(|| (number, code.to_string()))
        })
        .collect()
}

#[test]
fn the_table_of_variables_is_the_one_of_the_code() {
    let mut table =
        String::from("| Variable | Values | Default | What it decides |\n|---|---|---|---|\n");
    for variable in VARIABLES {
        table += &format!(
            "| `{}` | {} | `{}` | {} |\n",
            variable.name,
            variable.values.replace('|', "\\|"),
            variable.default,
            variable.meaning
        );
    }
    let page = read("docs/environment.md");
    assert!(
        page.contains(&table),
        "docs/environment.md needs this table:\n\n{table}"
    );
}

#[test]
fn the_table_of_the_kits_variables_is_the_one_of_the_code() {
    let mut table =
        String::from("| Variable | Values | Default | What it decides |\n|---|---|---|---|\n");
    for variable in leaktrace::kit::VARIABLES {
        let default = match variable.default {
            "" => "none".to_string(),
            default => format!("`{default}`"),
        };
        table += &format!(
            "| `DB_{}` | {} | {default} | {} |\n",
            variable.name,
            variable.values.replace('|', "\\|"),
            variable.meaning
        );
    }
    let page = read("docs/environment.md");
    assert!(
        page.contains(&table),
        "docs/environment.md needs this table:\n\n{table}"
    );
}

#[test]
fn every_variable_that_the_pages_name_exists() {
    for path in pages() {
        let page = fs::read_to_string(&path).expect("it was listed");
        for word in page.split(|char: char| !(char.is_ascii_uppercase() || char == '_')) {
            let ours = word.starts_with("DB_LEAK_") || word.starts_with("DEBUG_DB_");
            assert!(
                !ours || VARIABLES.iter().any(|variable| variable.name == word),
                "{}: {word}",
                path.display()
            );
        }
    }
}

#[test]
fn each_kind_has_a_page_and_each_page_a_kind() {
    let mut expected: Vec<String> = Kind::ALL
        .iter()
        .map(|kind| kind.as_str().to_string())
        .collect();
    expected.sort();
    let found: Vec<String> = files("docs/findings", "md")
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .filter(|name| name != "README")
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn each_page_of_a_kind_has_the_four_sections_and_the_words_of_the_code() {
    for kind in Kind::ALL {
        let page = read(format!("docs/findings/{kind}.md"));
        let heads: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
        let title = format!("# {kind}");
        assert_eq!(
            heads,
            [
                &*title,
                "## What it means",
                "## The bug",
                "## The report",
                "## The remedy"
            ],
            "{kind}"
        );
        assert!(
            page.contains(kind.explain()),
            "{kind} does not say: {}",
            kind.explain()
        );
        let (_, bug) = page.split_once("## The bug").expect("it has the section");
        let (bug, rest) = bug.split_once("## The report").expect("it has the section");
        assert!(!blocks(bug, "rust").is_empty(), "{kind}: no bug");
        let (_, remedy) = rest
            .split_once("## The remedy")
            .expect("it has the section");
        assert!(!blocks(remedy, "rust").is_empty(), "{kind}: no remedy");
    }
}

/// The form of the code is that of rustfmt in another place: only its words are compared.
fn words(code: &str) -> String {
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_rust_in_the_pages_is_code_that_compiles() {
    let code: Vec<String> = files("tests/docs/snippets", "rs")
        .iter()
        .map(|path| words(&fs::read_to_string(path).expect("it was listed")))
        .collect();
    let mut count = 0;
    for path in pages() {
        for (line, block) in blocks(&fs::read_to_string(&path).expect("it was listed"), "rust") {
            count += 1;
            assert!(
                code.iter().any(|code| code.contains(&words(&block))),
                "{}:{line} is no piece of tests/docs/snippets:\n{block}",
                path.display()
            );
        }
    }
    assert!(count > 20, "only {count} blocks were found");
}

#[test]
fn every_link_to_a_file_leads_to_one() {
    for path in pages() {
        let page = fs::read_to_string(&path).expect("it was listed");
        for link in page
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = path.parent().expect("a file is in a folder").join(file);
            assert!(target.exists(), "{}: {link}", path.display());
        }
    }
}
