//! What a panic says, and where.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Clone, Debug)]
pub(crate) struct Panic {
    pub(crate) text: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// Runs `body`, which is expected to panic on this thread.
pub(crate) fn panic_of(body: impl FnOnce()) -> Panic {
    hook();
    LAST.take();
    catch_unwind(AssertUnwindSafe(body)).expect_err("it should have failed");
    LAST.take().expect("the hook saw it")
}

/// Keeps the panics of this thread instead of printing them; those of others are printed.
fn hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().expect("a panic has a place");
            LAST.set(Some(Panic {
                text: info.payload_as_str().unwrap_or_default().to_string(),
                file: place.file().to_string(),
                line: place.line(),
            }));
            before(info);
        }));
    });
}

/// The text with its times and lines masked: `tests/assertions/x.rs:LINE`, `out for TIME`.
pub(crate) fn masked(text: &str) -> String {
    let mut out = String::new();
    for (number, line) in text.lines().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let mut rest = line;
        while let Some(at) = rest.find(".rs:") {
            out.push_str(&rest[..at + 4]);
            out.push_str("LINE");
            rest = rest[at + 4..].trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
        }
        match rest.find("out for ") {
            Some(at) => {
                out.push_str(&rest[..at]);
                out.push_str("out for TIME");
            }
            None => out.push_str(rest),
        }
    }
    out
}
