//! Stacks: taken as addresses, kept once, named when somebody reads them.
//!
//! Responsible for interning and for saying which frames are the user's. Not responsible for
//! walking (`capture`).

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;

use super::capture::{self, Addresses};
use super::naming::Naming;
use super::{Location, text};
use crate::sync::atomic::{AtomicU64, Ordering};

/// The stack of a checkout.
///
/// Cheap to clone. Holds addresses until somebody asks for names.
#[derive(Clone)]
pub struct Stack(Arc<Inner>);

struct Inner {
    addresses: Box<[usize]>,
    frames: OnceLock<Box<[Frame]>>,
}

/// One frame of a [`Stack`] that belongs to the user's code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
pub struct Frame {
    function: String,
    location: Option<Location>,
}

impl Frame {
    /// The function, without the compiler's additions.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// Where in the source; `None` in a build without line tables.
    pub fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }
}

impl Stack {
    /// The frames of the user's own code, innermost first.
    ///
    /// Frames of the runtime, of sqlx, of web frameworks and of this crate are left out, and
    /// everything below the runtime's task.
    ///
    /// # Cost
    /// The first call of a process reads its debug information: milliseconds, with line tables up
    /// to 100 ms and 60 MiB. Not for a request's path.
    pub fn frames(&self) -> &[Frame] {
        self.0.frames.get_or_init(|| name(&self.0.addresses))
    }

    /// Whether it names anything besides that line. Names the frames.
    pub(crate) fn says_more_than(&self, line: Option<&Location>) -> bool {
        let is_line = |frame: &Frame| match (&frame.location, line) {
            (Some(frame), Some(line)) => frame.file() == line.file() && frame.line() == line.line(),
            _ => false,
        };
        !self.frames().iter().all(is_line)
    }

    /// The frames, if somebody has asked for them before.
    pub(crate) fn named(&self) -> Option<&[Frame]> {
        self.0.frames.get().map(|frames| &**frames)
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("addresses", &self.0.addresses.len())
            .field("frames", &self.named())
            .finish()
    }
}

impl fmt::Display for Stack {
    /// One line, innermost first: `orders::repo::reserve ‹ orders::service::ship`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let frames = self.frames();
        for (index, frame) in frames.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str(" ‹ ")?;
            }
            match &frame.location {
                // A build with line tables only has no better name for an async function.
                Some(location) if frame.function.starts_with('{') => {
                    f.write_str(&location.short())?;
                }
                _ => f.write_str(&frame.function)?,
            }
        }
        if frames.len() > SHOWN {
            write!(f, " ‹ … {} more", frames.len() - SHOWN)?;
        }
        Ok(())
    }
}

#[cfg(feature = "json")]
impl serde::Serialize for Stack {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.frames())
    }
}

/// Every distinct stack, once.
pub(crate) struct Stacks {
    by_hash: DashMap<u64, Stack>,
    hasher: RandomState,
    dropped: AtomicU64,
}

impl Stacks {
    /// The most distinct stacks that are kept; a service has hundreds.
    const KEPT: usize = 4096;

    pub(crate) fn new() -> Self {
        Self {
            by_hash: DashMap::new(),
            hasher: RandomState::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Captures the stack of this thread; `None` when there is no room for another distinct one.
    pub(crate) fn capture(&self) -> Option<Stack> {
        self.intern(&capture::capture())
    }

    fn intern(&self, stack: &Addresses) -> Option<Stack> {
        let addresses = stack.as_slice();
        let hash = self.hasher.hash_one(addresses);
        if let Some(known) = self.by_hash.get(&hash)
            && *known.0.addresses == *addresses
        {
            return Some(known.clone());
        }
        if self.by_hash.len() >= Self::KEPT {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let stack = Stack(Arc::new(Inner {
            addresses: addresses.into(),
            frames: OnceLock::new(),
        }));
        self.by_hash.insert(hash, stack.clone());
        Some(stack)
    }

    /// How many checkouts went without a stack because there was no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Below this function lies only the runtime that polls the task.
const TASK_BOTTOM: &str = "tokio::runtime::task::harness";

fn name(addresses: &[usize]) -> Box<[Frame]> {
    let _naming = Naming::begins();
    let mut frames: Vec<Frame> = Vec::new();
    let mut bottom = false;
    for &address in addresses {
        // A return address may lie behind the last instruction of its function: ask for the call.
        let call = address.saturating_sub(1);
        backtrace::resolve(call as *mut _, |symbol| {
            let Some(function) = symbol.name() else {
                return;
            };
            let function = tidy(&function.to_string());
            bottom |= function.contains(TASK_BOTTOM);
            let file = symbol.filename().map(|file| file.to_string_lossy());
            if bottom || !is_users(&function, file.as_deref()) {
                return;
            }
            let nameless = function.starts_with('{');
            if !nameless && frames.last().is_some_and(|last| last.function == function) {
                // The closure of an async function inside the function: one line is enough.
                return;
            }
            let location = file.zip(symbol.lineno()).map(|(file, line)| {
                Location::new(file.into_owned(), line, symbol.colno().unwrap_or(0))
            });
            frames.push(Frame { function, location });
        });
        if bottom {
            break;
        }
    }
    frames.into()
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
    fn the_same_place_is_one_stack_and_another_place_is_another() {
        let stacks = Stacks::new();
        let mut taken = Vec::new();
        for _ in 0..2 {
            taken.extend(stacks.capture());
        }
        taken.extend(stacks.capture());
        assert!(Arc::ptr_eq(&taken[0].0, &taken[1].0));
        assert!(!Arc::ptr_eq(&taken[0].0, &taken[2].0));
        assert_eq!(stacks.by_hash.len(), 2);
    }

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
