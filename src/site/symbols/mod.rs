//! From addresses to functions and lines, within the memory that there is.
//!
//! Responsible for what is read for that and when: debug information of the program only, of its
//! libraries the symbol tables; not when it does not fit; and given back when nobody reads names any
//! more. Not responsible for which frames are shown: see `names`.

mod memory;
mod modules;

use std::fmt;
// Statics, which loom's atomics cannot be.
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use backtrace::SymbolName;

use self::modules::{Modules, Program};
use super::text;

/// How many read names now.
static READERS: AtomicUsize = AtomicUsize::new(0);
/// How many ever began to.
static READINGS: AtomicUsize = AtomicUsize::new(0);
/// Debug information was read since it was last given back.
static IS_READ: AtomicBool = AtomicBool::new(false);
/// Somebody waits to give it back.
static LINGERS: AtomicBool = AtomicBool::new(false);

/// Keeps what names are read from until a moment after the last of these is dropped.
///
/// To be held around several stacks: what is read for the first serves all.
#[must_use]
#[derive(Debug)]
pub(crate) struct Reading(());

impl Reading {
    /// Findings come in crowds: as long nobody must have read names, before it is given back.
    const LINGER: Duration = Duration::from_secs(2);

    pub(crate) fn begins() -> Self {
        READINGS.fetch_add(1, Ordering::AcqRel);
        READERS.fetch_add(1, Ordering::AcqRel);
        Self(())
    }

    /// Gives it back when nobody has read names for a while.
    fn linger() {
        loop {
            let seen = READINGS.load(Ordering::Acquire);
            thread::sleep(Self::LINGER);
            let is_quiet = READERS.load(Ordering::Acquire) == 0;
            if is_quiet && READINGS.load(Ordering::Acquire) == seen {
                break;
            }
        }
        Self::give_back();
    }

    fn give_back() {
        // Before the rest: whoever reads from here on has somebody wait again.
        LINGERS.store(false, Ordering::Release);
        if IS_READ.swap(false, Ordering::AcqRel) {
            backtrace::clear_symbol_cache();
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let is_last = READERS.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last && IS_READ.load(Ordering::Acquire) && !LINGERS.swap(true, Ordering::AcqRel) {
            let thread = thread::Builder::new().name("leaktrace-names".into());
            if thread.spawn(Self::linger).is_err() {
                Self::give_back();
            }
        }
    }
}

/// Serialises what may have many stacks.
#[cfg(feature = "json")]
pub(crate) fn serialize_named<T: serde::Serialize, S: serde::Serializer>(
    stacks: &T,
    to: S,
) -> Result<S::Ok, S::Error> {
    let _reading = Reading::begins();
    stacks.serialize(to)
}

/// What is known of one frame; inlined calls make several at one address.
pub(super) struct Symbol {
    pub(super) function: String,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
}

/// Why a stack has no names, and how to get them elsewhere.
#[derive(Debug)]
pub(crate) struct Unnamed {
    why: Why,
    program: String,
    build_id: Option<String>,
    /// Of the calls, as the program's file has them.
    addresses: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Why {
    /// Reading takes so many bytes, and so many are free.
    Memory { takes: u64, free: u64 },
    /// Stripped, or its file has gone.
    NoSymbols,
}

/// Reads the symbols of one stack.
pub(super) struct Reader {
    modules: Modules,
    program: Option<Program>,
    _reading: Reading,
}

impl Reader {
    pub(super) fn new() -> Self {
        let modules = Modules::read();
        Self {
            program: modules.program(),
            modules,
            _reading: Reading::begins(),
        }
    }

    /// Whether there is room for what will be read.
    ///
    /// # Errors
    /// What can be said of this stack instead.
    pub(super) fn has_room(&self, stack: &[usize]) -> Result<(), Unnamed> {
        // What others read a moment ago is there.
        if IS_READ.load(Ordering::Acquire) {
            return Ok(());
        }
        self.has_room_in(memory::free(), stack)
    }

    fn has_room_in(&self, free: Option<u64>, stack: &[usize]) -> Result<(), Unnamed> {
        let (Some(program), Some(free)) = (&self.program, free) else {
            return Ok(());
        };
        let takes = takes(program.debug);
        match fits(takes, free) {
            true => Ok(()),
            false => Err(self.unnamed(program, Why::Memory { takes, free }, stack)),
        }
    }

    /// Calls `each` with what is known of the call before a return address, innermost first.
    pub(super) fn symbols(&self, return_address: usize, mut each: impl FnMut(Symbol)) {
        // A return address may lie behind the last instruction of its function: ask for the call.
        let call = return_address.saturating_sub(1);
        if self.modules.are_known() && !self.modules.is_programs(call) {
            // A detached file of the C library's debug information alone takes 65 ms, to name what is
            // nobody's code.
            let library = self.modules.library(call);
            if let Some(name) = library.and_then(|(path, at)| modules::symbol(path, at)) {
                each(Symbol {
                    function: SymbolName::new(&name).to_string(),
                    file: None,
                    line: None,
                    column: None,
                });
            }
            return;
        }
        IS_READ.store(true, Ordering::Release);
        backtrace::resolve(call as *mut _, |symbol| {
            if let Some(function) = symbol.name() {
                each(Symbol {
                    function: function.to_string(),
                    file: symbol.filename().map(|file| file.to_string_lossy().into()),
                    line: symbol.lineno(),
                    column: symbol.colno(),
                });
            }
        });
    }

    /// What can be said of a stack of which nothing was found; `None` where no file is known.
    pub(super) fn without_symbols(&self, stack: &[usize]) -> Option<Unnamed> {
        let program = self.program.as_ref()?;
        Some(self.unnamed(program, Why::NoSymbols, stack))
    }

    fn unnamed(&self, program: &Program, why: Why, stack: &[usize]) -> Unnamed {
        let calls: Vec<_> = stack
            .iter()
            .map(|address| address.saturating_sub(1))
            .collect();
        Unnamed {
            why,
            program: program.name.clone(),
            build_id: program.build_id.clone(),
            addresses: self.modules.in_program(program, &calls),
        }
    }
}

/// What reading takes at most, in bytes, of so many bytes of debug information: it is mapped, and
/// tables are made of it. 29 MiB took 48.
fn takes(debug: u64) -> u64 {
    (debug / 4).saturating_mul(7)
}

/// Whether as much may be taken. What is left is the service's, which takes memory meanwhile.
fn fits(takes: u64, free: u64) -> bool {
    const LEFT: u64 = 32 << 20;
    takes == 0 || takes.saturating_add(LEFT) <= free
}

impl fmt::Display for Unnamed {
    /// `not named, reading takes 66 MiB and 20 MiB are free: addr2line -Cfpi -e orders 0x1f2e 0x2a3b
    /// (build id 5c0f…)`, to be run where the program or its debug information is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Why::Memory { takes, free } => write!(
                f,
                "not named, reading takes {} MiB and {} MiB are free",
                takes.div_ceil(1 << 20),
                free >> 20
            )?,
            Why::NoSymbols => f.write_str("not named, the program has no symbols")?,
        }
        if self.addresses.is_empty() {
            return Ok(());
        }
        write!(f, ": addr2line -Cfpi -e {}", quoted(&self.program))?;
        for address in &self.addresses {
            write!(f, " {address:#x}")?;
        }
        match &self.build_id {
            Some(id) => write!(f, "   (build id {id})"),
            None => Ok(()),
        }
    }
}

/// As a shell takes it for one word.
fn quoted(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    match name.bytes().all(is_plain) && !name.starts_with('-') {
        true => name.to_string(),
        false => {
            let name = text::escape_text(name, 200);
            format!("'./{}'", name.replace('\'', r"'\''"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn names_are_read_where_some_memory_stays_free() {
        assert_eq!(takes(40 * MIB), 70 * MIB);
        assert!(fits(70 * MIB, 102 * MIB));
        assert!(!fits(70 * MIB, 102 * MIB - 1));
        assert!(fits(0, 0), "nothing is read");
        assert!(!fits(takes(u64::MAX), u64::MAX - 1), "no size overflows");
    }

    #[test]
    fn what_is_not_named_says_why_and_how_to() {
        let unnamed = |why, program: &str| Unnamed {
            why,
            program: program.to_string(),
            build_id: Some("5c0f".to_string()),
            addresses: vec![0x1f2e, 0x2a3b],
        };
        let (takes, free) = (66 * MIB, 20 * MIB);
        assert_eq!(
            unnamed(Why::Memory { takes, free }, "orders").to_string(),
            "not named, reading takes 66 MiB and 20 MiB are free: addr2line -Cfpi -e orders 0x1f2e 0x2a3b   (build id 5c0f)"
        );
        assert_eq!(
            unnamed(Why::NoSymbols, "my ord'ers").to_string(),
            r"not named, the program has no symbols: addr2line -Cfpi -e './my ord'\''ers' 0x1f2e 0x2a3b   (build id 5c0f)"
        );
    }

    /// The command is run as a reader would: what it says must name this test.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_command_names_what_was_not_named() {
        let mut stack = Vec::new();
        backtrace::trace(|frame| {
            stack.push(frame.ip() as usize);
            true
        });
        let reader = Reader::new();
        assert!(reader.has_room_in(Some(u64::MAX), &stack).is_ok());
        assert!(reader.has_room_in(None, &stack).is_ok(), "nothing is known");
        let unnamed = reader.has_room_in(Some(MIB), &stack).expect_err("1 MiB");
        let said = unnamed.to_string();
        let (_, command) = said.split_once(": ").expect("a command");
        let (command, id) = command.split_once("   (").unwrap_or((command, ""));
        let program = std::env::current_exe().expect("a path");
        let run = std::process::Command::new("sh")
            .args(["-c", command])
            .current_dir(program.parent().expect("a folder"))
            .output()
            .expect("a shell");
        let named = String::from_utf8_lossy(&run.stdout);
        assert!(
            named.contains("the_command_names_what_was_not_named")
                && named.contains("src/site/symbols/mod.rs"),
            "{command} ({id})\n{named}{}",
            String::from_utf8_lossy(&run.stderr)
        );
    }
}
