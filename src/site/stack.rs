//! Stacks: taken as addresses, kept once, named when somebody reads them.
//!
//! Responsible for interning and for saying which frames are the user's. Not responsible for
//! walking (`capture`).

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::ptr;
use std::sync::{LazyLock, OnceLock};

use dashmap::DashMap;

use super::capture::Captures;
use super::{CallSite, Location, text};
use crate::config::Unwinder;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The stack of a checkout.
///
/// Cheap to clone. Holds addresses until somebody asks for names. Each distinct stack is kept once,
/// for the life of the process.
#[derive(Clone)]
pub struct Stack(&'static Inner);

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

/// Captures the stacks of one monitor, and counts those that were not kept.
pub(crate) struct Stacks {
    portable: bool,
    dropped: AtomicU64,
}

/// One for the process, whatever the number of monitors: the same code has the same stacks.
static CAPTURES: Captures<Inner> = Captures::new();
static KEPT: LazyLock<Kept> = LazyLock::new(Kept::new);

impl Stacks {
    pub(crate) fn new(unwinder: Unwinder) -> Self {
        Self {
            portable: unwinder == Unwinder::Portable,
            dropped: AtomicU64::new(0),
        }
    }

    /// Captures the stack of this thread; `None` when there is no room for another distinct one.
    /// `by` may be any call site near: a capture from the same one is found faster.
    pub(crate) fn capture(&self, by: Option<CallSite>) -> Option<Stack> {
        let fast = !self.portable;
        let site = by.map_or(0, |site| ptr::from_ref(site.0).addr());
        let kept = CAPTURES.capture(fast, site, |addresses| KEPT.intern(addresses));
        if kept.is_none() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        kept.map(Stack)
    }

    /// Does the work of a first capture, so that no request has to: 0.1 ms to 1 ms.
    pub(crate) fn prepare(&self) {
        LazyLock::force(&KEPT);
        if !self.portable {
            CAPTURES.prepare();
        }
    }

    /// Notices libraries that were loaded or unloaded. From time to time, from a thread of our own.
    pub(crate) fn refresh(&self) {
        if !self.portable {
            CAPTURES.refresh();
        }
    }

    /// How many checkouts went without a stack because there was no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Every distinct stack, once.
struct Kept {
    by_hash: DashMap<u64, &'static Inner>,
    hasher: RandomState,
}

impl Kept {
    /// The most distinct stacks that are kept; a service has hundreds.
    const MOST: usize = 4096;

    fn new() -> Self {
        Self {
            by_hash: DashMap::new(),
            hasher: RandomState::new(),
        }
    }

    fn intern(&self, addresses: &[usize]) -> Option<&'static Inner> {
        // The slow walk ends some stacks with the address that stands for "nobody called".
        let addresses = match addresses {
            [addresses @ .., 0] => addresses,
            addresses => addresses,
        };
        let hash = self.hasher.hash_one(addresses);
        if let Some(known) = self.by_hash.get(&hash)
            && *known.addresses == *addresses
        {
            return Some(*known);
        }
        if self.by_hash.len() >= Self::MOST {
            return None;
        }
        // Never freed: a template may name it at any time, and there is a bound.
        let stack: &'static Inner = Box::leak(Box::new(Inner {
            addresses: addresses.into(),
            frames: OnceLock::new(),
        }));
        self.by_hash.insert(hash, stack);
        Some(stack)
    }
}

/// Below this function lies only the runtime that polls the task.
const TASK_BOTTOM: &str = "tokio::runtime::task::harness";

fn name(addresses: &[usize]) -> Box<[Frame]> {
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
            CAPTURES.end_at(address);
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
        for unwinder in [Unwinder::Auto, Unwinder::Portable] {
            let stacks = Stacks::new(unwinder);
            let mut taken = Vec::new();
            for _ in 0..2 {
                taken.extend(stacks.capture(None));
            }
            taken.extend(stacks.capture(None));
            assert!(ptr::eq(taken[0].0, taken[1].0));
            assert!(!ptr::eq(taken[0].0, taken[2].0));
        }
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
