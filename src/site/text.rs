//! Makes text from outside fit for one line of a log: no control characters, no absolute paths.
//!
//! Responsible for escaping, for the shown form of request ids and of source paths. Not responsible
//! for SQL, see `sql`.

use std::borrow::Cow;
use std::fmt::Write;

/// Longest request id shown as it is.
const REQUEST_ID_CHARS: usize = 64;

/// Longest source path, in characters.
const PATH_CHARS: usize = 200;

/// Makes control, bidi and invisible characters visible, and cuts at `max_chars` with an ellipsis
/// (not counted). An escape is never cut in two.
pub(crate) fn escape_text(text: &str, max_chars: usize) -> Cow<'_, str> {
    let clean = |char: char| !is_hidden(char);
    // Bytes bound characters from above: the usual text is looked at once.
    if text.len() <= max_chars && text.chars().all(clean) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(max_chars.saturating_mul(4)));
    let mut count = 0_usize;
    let mut escape = String::new();
    for char in text.chars() {
        escape.clear();
        push_visible(&mut escape, char);
        count += escape.chars().count();
        if count > max_chars {
            out.push('…');
            break;
        }
        out.push_str(&escape);
    }
    Cow::Owned(out)
}

fn push_visible(out: &mut String, char: char) {
    match char {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ if is_hidden(char) => {
            // Writing into a string cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(char));
        }
        _ => out.push(char),
    }
}

/// Characters that move the cursor, turn the direction of the text, or cannot be seen at all.
pub(crate) fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(u32::from(char),
            0x00AD // soft hyphen
            | 0x034F // combining grapheme joiner
            | 0x061C // Arabic letter mark
            | 0x115F..=0x1160 // Hangul fillers
            | 0x17B4..=0x17B5 // Khmer inherent vowels
            | 0x180B..=0x180F // Mongolian selectors and vowel separator
            | 0x200B..=0x200F // zero width, left-to-right and right-to-left marks
            | 0x2028..=0x202E // line and paragraph separators, bidi embeddings and overrides
            | 0x2060..=0x206F // word joiner, invisible operators, bidi isolates
            | 0x2800 // blank Braille pattern
            | 0x3164 // Hangul filler
            | 0xFE00..=0xFE0F // variation selectors
            | 0xFEFF // byte order mark
            | 0xFFA0 // half-width Hangul filler
            | 0xFFF0..=0xFFFB // unassigned, interlinear annotations
            | 0xFFFE..=0xFFFF // no characters
            | 0x1_BCA0..=0x1_BCA3 // shorthand controls
            | 0x1_D173..=0x1_D17A // musical controls
            | 0xE_0000..=0xE_0FFF // tags, further variation selectors
        )
}

/// The shown form of a request id: itself if it is harmless, else `#` and its hash.
///
/// The hash is stable over processes and machines, so that one request is found again in the logs
/// of all of them. It hides no id that can be guessed.
pub(crate) fn request_id(raw: &[u8]) -> String {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=REQUEST_ID_CHARS).contains(&raw.len()) && raw.iter().all(harmless) {
        return raw.iter().copied().map(char::from).collect();
    }
    format!("#{:016x}", fnv1a(raw))
}

/// FNV-1a, 64 bits: the standard library promises no hash that stays the same.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Directories of a crate below which its sources lie.
const ROOTS: &[&str] = &["src", "tests", "examples", "benches"];

/// Directories that hold the members of a workspace.
const MEMBERS: &[&str] = &["crates", "packages", "libs", "services", "apps", "members"];

/// The shown form of a source path: `src/…` or `crate-1.2.3/src/…`, never absolute.
///
/// - A dependency begins with its name and version, the standard library with `library`.
/// - A relative path is kept, but for `.` and `..`: it begins at the workspace's root.
/// - An absolute path cannot tell where the workspace begins. It is cut to the last `src`, `tests`,
///   `examples` or `benches`; one directory before it is kept only if it surely names a crate.
/// - Without any of these, only the file's name is left.
pub(crate) fn source_path(file: &str) -> String {
    let parts: Vec<&str> = file
        .split(['/', '\\'])
        .filter(|part| !matches!(*part, "" | "." | ".."))
        .collect();
    let drive = parts
        .iter()
        .take(2)
        .any(|part| part.len() >= 2 && part.as_bytes()[1] == b':');
    let absolute = drive || file.starts_with(['/', '\\', '~']);
    let outside = file.split(['/', '\\']).any(|part| part == "..");
    let kept = match known_root(&parts) {
        Some(name) => name,
        None if absolute || outside => below_root(&parts),
        None => parts.join("/"),
    };
    escape_text(&kept, PATH_CHARS).into_owned()
}

/// The end of a path of [`source_path`] that tells which file it is: `repo.rs`, `orders/mod.rs`,
/// `warehouse/src/lib.rs`.
pub(crate) fn short_path(path: &str) -> &str {
    /// Names that stand for the folder above them.
    const OF_THE_FOLDER: &[&str] = &["lib.rs", "main.rs", "mod.rs"];
    let mut parts = path.rsplit('/');
    let Some(name) = parts.next().filter(|name| OF_THE_FOLDER.contains(name)) else {
        return path.rsplit('/').next().unwrap_or(path);
    };
    let Some(folder) = parts.next() else {
        return path;
    };
    let mut length = folder.len() + 1 + name.len();
    // Every crate has one.
    if ROOTS.contains(&folder) {
        length += parts.next().map_or(0, |krate| krate.len() + 1);
    }
    path.get(path.len() - length..).unwrap_or(path)
}

/// Paths whose beginning is known: the standard library, cargo's registries and git checkouts.
fn known_root(parts: &[&str]) -> Option<String> {
    let find = |wanted: &str| parts.iter().position(|part| *part == wanted);
    let tail = |from: usize| {
        parts
            .get(from..)
            .filter(|tail| !tail.is_empty())
            .map(|tail| tail.join("/"))
    };
    // `/rustc/<hash>/library/…` and `…/lib/rustlib/src/rust/library/…`
    if let Some(at) = find("library")
        && at > 0
        && (parts[at - 1] == "rust" || (at > 1 && parts[at - 2] == "rustc"))
    {
        return tail(at);
    }
    // `…/registry/src/<index>/tower-0.5.2/src/…`
    if let Some(at) = find("registry").filter(|at| parts.get(at + 1) == Some(&"src")) {
        return tail(at + 3);
    }
    // `…/git/checkouts/<repository>-<hash>/<revision>/…`
    if let Some(at) = find("checkouts").filter(|at| *at > 0 && parts[at - 1] == "git") {
        let inside = tail(at + 3)?;
        let (repository, _) = parts[at + 1].rsplit_once('-')?;
        return Some(format!("{repository}/{inside}"));
    }
    None
}

/// The crates of sqlx: their files call our executors for the user.
const SQLX: &[&str] = &[
    "sqlx",
    "sqlx-core",
    "sqlx-postgres",
    "sqlx-mysql",
    "sqlx-sqlite",
];

/// Whether a file belongs to sqlx or to the standard library, wherever they were compiled.
///
/// A folder counts as sqlx's when it bears the name with a version (`sqlx-core-0.9.0`) or is the
/// crate's own folder inside of a checkout of sqlx (`sqlx-core/src`): a user's `sqlx-helpers` is
/// the user's, and so is a project folder that happens to be called `sqlx`.
pub(crate) fn is_between(file: &str) -> bool {
    let mut parts = file.split(['/', '\\']).peekable();
    let mut rustc = false;
    while let Some(part) = parts.next() {
        if rustc || (part == "rust" && parts.peek() == Some(&"library")) {
            return true;
        }
        rustc = part == "rustc";
        if !part.starts_with("sqlx") {
            continue;
        }
        let name = match has_version(part) {
            true => part.rsplit_once('-').map_or(part, |(name, _)| name),
            false if part == "sqlx" => continue,
            false => part,
        };
        if SQLX.contains(&name) && parts.peek() == Some(&"src") {
            return true;
        }
    }
    false
}

fn below_root(parts: &[&str]) -> String {
    // The last part is the file, whatever its name.
    let directories = parts.len().saturating_sub(1);
    let Some(mut root) = parts[..directories]
        .iter()
        .rposition(|part| ROOTS.contains(part))
    else {
        return parts.last().copied().unwrap_or("(unknown)").to_owned();
    };
    // `src/tests/…` is one module tree.
    if root > 0 && parts[root - 1] == "src" {
        root -= 1;
    }
    let member = root > 1 && MEMBERS.contains(&parts[root - 2]);
    if root > 0 && (member || has_version(parts[root - 1])) {
        root -= 1;
    }
    parts[root..].join("/")
}

/// Whether a directory is named like `tower-0.5.2`.
fn has_version(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, version)| {
        version.contains('.') && version.starts_with(|first: char| first.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        assert_eq!(
            escape_text("a\nb\tc\u{202e}d\u{7f}\u{85}", 99),
            "a\\nb\\tc\\u{202e}d\\u{7f}\\u{85}"
        );
        assert_eq!(escape_text("Größe 表 🦀", 99), "Größe 表 🦀");
        assert!(matches!(escape_text("plain", 5), Cow::Borrowed("plain")));
    }

    #[test]
    fn a_cut_shows_an_ellipsis_and_splits_no_escape() {
        assert_eq!(escape_text("abcdef", 6), "abcdef");
        assert_eq!(escape_text("abcdef", 3), "abc…");
        assert_eq!(escape_text("ab\u{202e}", 5), "ab…");
        assert_eq!(escape_text("äöü", 3), "äöü");
        assert_eq!(escape_text("x", 0), "…");
        assert_eq!(escape_text("", 0), "");
    }

    #[test]
    fn a_request_id_is_itself_or_its_hash() {
        assert_eq!(request_id(b"3f9c-A.b_0"), "3f9c-A.b_0");
        let longest = "a".repeat(64);
        assert_eq!(request_id(longest.as_bytes()), longest);
        // The published test vectors of FNV-1a.
        assert_eq!(request_id(b""), "#cbf29ce484222325");
        assert_eq!(format!("{:016x}", fnv1a(b"foobar")), "85944171f73967e8");
        for bad in [
            &b"a b"[..],
            b"a\nb",
            b"\xff",
            "a".repeat(65).as_bytes(),
            b"user@host",
        ] {
            let shown = request_id(bad);
            assert!(shown.len() == 17 && shown.starts_with('#'), "{shown}");
        }
    }

    #[test]
    fn a_source_path_begins_at_its_crate() {
        for (path, shown) in [
            ("src/main.rs", "src/main.rs"),
            ("examples/leaky_service.rs", "examples/leaky_service.rs"),
            ("crates/db/src/lib.rs", "crates/db/src/lib.rs"),
            ("./src/main.rs", "src/main.rs"),
            ("/home/me/orders/src/repo.rs", "src/repo.rs"),
            ("/home/me/src/main.rs", "src/main.rs"),
            ("/home/me/src/orders/tests/a.rs", "tests/a.rs"),
            ("/home/me/orders/src/tests/a.rs", "src/tests/a.rs"),
            ("/home/me/ws/crates/db/src/lib.rs", "db/src/lib.rs"),
            ("../../home/me/crates/db/src/lib.rs", "db/src/lib.rs"),
            ("/home/me/build.rs", "build.rs"),
            ("/home/me/target/debug/build/x-1/out/gen.rs", "gen.rs"),
            (
                "/x/registry/src/index-hash/tower-0.5.2/src/util.rs",
                "tower-0.5.2/src/util.rs",
            ),
            (
                "/x/vendor/tower-0.5.2/src/util.rs",
                "tower-0.5.2/src/util.rs",
            ),
            (
                "/h/.cargo/git/checkouts/sqlx-0a1b/9f8e/sqlx-core/src/pool.rs",
                "sqlx/sqlx-core/src/pool.rs",
            ),
            (
                "/h/.cargo/git/checkouts/my-lib-0a1b/9f8e/src/lib.rs",
                "my-lib/src/lib.rs",
            ),
            ("/rustc/0123/library/core/src/x.rs", "library/core/src/x.rs"),
            (
                "/h/toolchains/t/lib/rustlib/src/rust/library/std/src/x.rs",
                "library/std/src/x.rs",
            ),
            (r"C:\Users\me\orders\src\repo.rs", "src/repo.rs"),
            (r"\\?\C:\Users\me\ws\crates\db\src\lib.rs", "db/src/lib.rs"),
            (r"src\repo.rs", "src/repo.rs"),
            ("src/a\u{202e}b\n.rs", "src/a\\u{202e}b\\n.rs"),
            ("<anon>", "<anon>"),
            ("", ""),
            ("/", "(unknown)"),
        ] {
            assert_eq!(source_path(path), shown, "{path:?}");
        }
    }

    #[test]
    fn a_short_path_tells_which_file_it_is() {
        for (path, short) in [
            ("src/repo.rs", "repo.rs"),
            ("crates/db/src/repo.rs", "repo.rs"),
            ("warehouse/src/lib.rs", "warehouse/src/lib.rs"),
            ("crates/warehouse/src/lib.rs", "warehouse/src/lib.rs"),
            ("tower-0.5.2/src/lib.rs", "tower-0.5.2/src/lib.rs"),
            ("src/main.rs", "src/main.rs"),
            ("src/orders/mod.rs", "orders/mod.rs"),
            ("crates/db/src/orders/mod.rs", "orders/mod.rs"),
            ("tests/reports/main.rs", "reports/main.rs"),
            ("größe/src/lib.rs", "größe/src/lib.rs"),
            ("main.rs", "main.rs"),
            ("", ""),
        ] {
            assert_eq!(short_path(path), short, "{path:?}");
        }
    }

    #[test]
    fn a_file_of_sqlx_or_of_the_standard_library_is_told_from_a_users() {
        for file in [
            "/x/registry/src/index-hash/sqlx-core-0.9.0/src/query.rs",
            "/x/vendor/sqlx-0.9.1/src/lib.rs",
            "/h/.cargo/git/checkouts/sqlx-0a1b/9f8e/sqlx-postgres/src/connection/executor.rs",
            r"C:\x\sqlx-mysql-0.9.0\src\x.rs",
            "/rustc/0123/library/core/src/ops/function.rs",
            "/h/toolchains/t/lib/rustlib/src/rust/library/core/src/x.rs",
        ] {
            assert!(is_between(file), "{file}");
        }
        for file in [
            "src/repo.rs",
            "/home/me/sqlx/src/main.rs",
            "/home/me/sqlx-helpers/src/lib.rs",
            "crates/sqlx-helpers-0.1/src/lib.rs",
            "/home/me/rust/orders/src/main.rs",
            "src/sqlx-core/query.rs",
        ] {
            assert!(!is_between(file), "{file}");
        }
    }

    proptest! {
        #[test]
        fn no_text_brings_a_hidden_character_through(text in any::<String>(), max in 0_usize..50) {
            let shown = escape_text(&text, max);
            prop_assert!(!shown.chars().any(is_hidden));
            prop_assert!(shown.chars().count() <= max + 1);
        }

        #[test]
        fn no_path_stays_absolute(path in r"(/|\\|C:|\.\.|home|me|src|tests|crates|registry|x\.rs|\x{202e}|-|~){0,12}") {
            let shown = source_path(&path);
            prop_assert!(!shown.starts_with('/'), "{}", shown);
            prop_assert!(!shown.split('/').any(|part| part == ".."), "{}", shown);
            prop_assert!(!shown.chars().any(is_hidden));
        }

        #[test]
        fn a_home_directory_never_shows(rest in "(/[a-z]{1,6}){0,3}", file in "[a-z]{1,6}") {
            let shown = source_path(&format!("/home/CANARY{rest}/src/{file}.rs"));
            prop_assert!(!shown.contains("CANARY"), "{}", shown);
        }

        #[test]
        fn a_request_id_has_only_harmless_characters(raw in any::<Vec<u8>>()) {
            let shown = request_id(&raw);
            prop_assert!(shown.len() <= 64);
            prop_assert!(shown.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-#".contains(&b)));
        }
    }
}
