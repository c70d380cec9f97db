//! The example as somebody else's crate, with other lines.
//!
//! Its dependencies are those of this crate's tests, so that nothing but itself is compiled.

use std::fs;
use std::path::Path;

use crate::program::{Program, cargo, target};

/// Writes a crate whose `src/main.rs` is `source`, and builds it.
pub(crate) fn build(source: &str) -> Program {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moved");
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        // Untouched if it is the same: then cargo has nothing to do.
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return;
        }
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    let read = |path: &str| {
        fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    fs::create_dir_all(folder.join("src")).expect("a folder below target/");
    write("src/main.rs", source);
    write("Cargo.lock", &read("Cargo.lock"));
    write("Cargo.toml", &manifest(&read("Cargo.toml"), root));
    cargo(&["build", "--quiet", "--offline"], &folder);
    Program::at(target().join("debug/moved"))
}

/// A manifest with the development dependencies of `ours` as its own.
fn manifest(ours: &str, root: &Path) -> String {
    let section = |name: &str| {
        let body = ours
            .split_once(&format!("\n[{name}]\n"))
            .unwrap_or_else(|| panic!("no [{name}]"))
            .1;
        body.split("\n[").next().unwrap_or_default().to_string()
    };
    let root = root.display().to_string().replace('\\', "/");
    let dependencies =
        section("dev-dependencies").replace("path = \".\"", &format!("path = \"{root}\""));
    format!(
        "[package]\nname = \"moved\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
         [dependencies]\n{dependencies}\n\n[profile.dev]\n{}\n\n[workspace]\n",
        section("profile.dev")
    )
}
