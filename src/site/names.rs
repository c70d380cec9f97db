//! Which frames of a stack are the user's, and what they are called.
//!
//! Responsible for leaving out what stands between the user's code and us, and for names without the
//! compiler's additions. Not responsible for how symbols are read (`symbols`).

use super::symbols::{Reader, Symbol, Unnamed};
use super::{Frame, Location, text};

/// Below this function lies only the runtime that polls the task.
const TASK_BOTTOM: &str = "tokio::runtime::task::harness";

/// A stack with names.
#[derive(Debug)]
pub(super) struct Named {
    /// The user's, innermost first.
    pub(super) frames: Box<[Frame]>,
    /// The return address at which the task ends: below it lies nothing worth a name.
    pub(super) bottom: Option<usize>,
}

/// Names a stack.
///
/// # Errors
/// Where there is not the memory to read names, or nothing to read them from.
pub(super) fn name(stack: &[usize], reader: &Reader) -> Result<Named, Unnamed> {
    reader.has_room(stack)?;
    let mut frames: Vec<Frame> = Vec::new();
    let mut bottom = None;
    let mut is_known = false;
    for &address in stack {
        reader.symbols(address, |symbol| {
            is_known = true;
            let Symbol {
                function,
                file,
                line,
                column,
            } = symbol;
            let function = tidy(&function);
            if function.contains(TASK_BOTTOM) {
                bottom = Some(address);
            }
            if bottom.is_some() || !is_users(&function, file.as_deref()) {
                return;
            }
            let nameless = function.starts_with('{');
            if !nameless && frames.last().is_some_and(|last| last.function == function) {
                // The closure of an async function inside the function: one line is enough.
                return;
            }
            let location = file
                .zip(line)
                .map(|(file, line)| Location::new(file, line, column.unwrap_or(0)));
            frames.push(Frame { function, location });
        });
        if bottom.is_some() {
            break;
        }
    }
    match reader.without_symbols(stack).filter(|_| !is_known) {
        Some(unnamed) => Err(unnamed),
        None => Ok(Named {
            frames: frames.into(),
            bottom,
        }),
    }
}

/// Strips the hash and the closure marks that the compiler appends.
fn tidy(function: &str) -> String {
    let function = match function.rfind("::h") {
        Some(at)
            if function.len() - at == 19
                && function[at + 3..].bytes().all(|b| b.is_ascii_hexdigit()) =>
        {
            &function[..at]
        }
        _ => function,
    };
    text::escape_text(
        &function
            .replace("::{{closure}}", "")
            .replace("::{closure#0}", ""),
        300,
    )
    .into_owned()
}

/// Crates that stand between the user's code and us. Used where there are no file names; with
/// them, every dependency is recognised by its path.
const NOT_USERS: &[&str] = &[
    "std",
    "core",
    "alloc",
    "leaktrace",
    "sqlx",
    "sqlx_core",
    "sqlx_postgres",
    "sqlx_mysql",
    "sqlx_sqlite",
    "tokio",
    "tokio_util",
    "tokio_stream",
    "futures",
    "futures_core",
    "futures_util",
    "futures_executor",
    "async_stream",
    "tower",
    "tower_http",
    "tower_layer",
    "tower_service",
    "axum",
    "axum_core",
    "axum_extra",
    "hyper",
    "hyper_util",
    "h2",
    "http",
    "http_body",
    "http_body_util",
    "tonic",
    "tracing",
    "tracing_core",
    "tracing_subscriber",
    "backtrace",
    "pin_project_lite",
    "rayon",
    "rayon_core",
    "test",
    "actix_web",
    "actix_rt",
];

/// Where this crate was compiled: a build with line tables only calls our async functions
/// `{async_fn#0}`, so that only the path tells whose they are.
const OUR_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");

fn is_users(function: &str, file: Option<&str>) -> bool {
    if file.is_some_and(|file| {
        let file = file.replace('\\', "/");
        file.starts_with(OUR_FOLDER)
            || file.contains("/registry/src/")
            || file.contains("/git/checkouts/")
            || file.starts_with("/rustc/")
            || file.contains("/library/")
    }) {
        return false;
    }
    let path = function.trim_start_matches(['<', '&', '(', '*', '[']);
    let path = path
        .trim_start_matches("mut ")
        .trim_start_matches("const ")
        .trim_start_matches("dyn ");
    match path.split_once("::") {
        Some((krate, _)) => !NOT_USERS.contains(&krate),
        // `{async_fn#0}`: a build with line tables only has no path, and the file is the user's.
        None if function.starts_with('{') => file.is_some(),
        // `main`, `_start`, `clone3`: nothing a reader could go to.
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_of_users_are_shown() {
        assert!(is_users("orders::repo::reserve", Some("src/repo.rs")));
        assert!(is_users("<orders::Repo as orders::Store>::reserve", None));
        assert!(!is_users(
            "<core::pin::Pin<P> as core::future::Future>::poll",
            None
        ));
        assert!(!is_users("tokio::runtime::park", None));
        assert!(!is_users("_start", None));
        assert!(is_users(
            "{async_fn#0}",
            Some("/home/me/orders/src/repo.rs")
        ));
        assert!(!is_users("{async_fn#0}", None));
        assert!(!is_users(
            "{async_fn#0}<sqlx_sqlite::database::Sqlite>",
            Some(&format!("{OUR_FOLDER}pool/acquire.rs"))
        ));
        assert!(!is_users(
            "deadpool::get",
            Some("/home/me/.cargo/registry/src/index-1/deadpool-0.12.0/src/lib.rs")
        ));
    }

    #[test]
    fn the_compilers_additions_are_stripped() {
        assert_eq!(
            tidy("orders::repo::reserve::{{closure}}::h0123456789abcdef"),
            "orders::repo::reserve"
        );
        assert_eq!(tidy("orders::repo::hello"), "orders::repo::hello");
    }
}
