//! Captures through libraries that are loaded and unloaded, with frames of every kind.
//!
//! Responsible for stale rules: found out by a refresh, harmless before it. The libraries are made here
//! by the C compiler that links Rust programs too.
#![allow(unsafe_code)] // Libraries are loaded and called.

use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::compare::{UNWINDER, all_found, compare, count, times};

/// Two libraries of the same names, addresses and sizes whose frames are different; and one whose
/// frames have a size that only the call decides, or that no table tells.
const SOURCE: &str = r#"

void through(void (*call)(void), unsigned long size) {
    volatile char room[ROOM];
    room[0] = (char)size;
    call();
    room[1] = room[0];
}
void dynamic(void (*call)(void), unsigned long size) {
    volatile char *room = __builtin_alloca(size);
    room[0] = 1;
    call();
    room[1] = room[0];
}
__asm__(
    ".globl bare\n"
    "bare: sub $24, %rsp\n"
    "call *%rdi\n"
    "add $24, %rsp\n"
    "ret\n");
"#;

type Through = extern "C" fn(extern "C" fn(), usize);

struct Library {
    handle: *mut c_void,
    through: Through,
    dynamic: Through,
    bare: Through,
}

impl Library {
    fn load(path: &Path) -> Self {
        let name = CString::new(path.to_str().expect("a plain path")).expect("no zero");
        // SAFETY: a library without initialisers, and three functions of the type that its source says.
        unsafe {
            let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!handle.is_null(), "{path:?} cannot be loaded");
            let symbol = |name: &std::ffi::CStr| {
                let address = libc::dlsym(handle, name.as_ptr());
                assert!(!address.is_null(), "{name:?}");
                std::mem::transmute::<*mut c_void, Through>(address)
            };
            Self {
                handle,
                through: symbol(c"through"),
                dynamic: symbol(c"dynamic"),
                bare: symbol(c"bare"),
            }
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: loaded by `load`, and none of its functions is under way.
        assert_eq!(unsafe { libc::dlclose(self.handle) }, 0);
    }
}

fn build(folder: &Path, name: &str, room: usize, more: &[&str]) -> PathBuf {
    let source = folder.join(format!("{name}.c"));
    std::fs::write(&source, SOURCE).expect("a source file");
    let library = folder.join(format!("{name}.so"));
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1"])
        .arg(format!("-DROOM={room}"))
        .args(more)
        .arg("-o")
        .args([&library, &source])
        .status()
        .expect("`cc`, which links Rust programs too");
    assert!(built.success());
    library
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("leaktrace-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for libraries");
    folder
}

/// Libraries come and go for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

extern "C" fn untold() {
    compare("function without unwind information");
}

extern "C" fn tableless() {
    compare("library without tables");
}

#[test]
fn what_no_table_tells_ends_the_stack_as_it_does_for_the_system_or_is_unknown() {
    let _alone = ALONE.lock().unwrap_or_else(|error| error.into_inner());
    let folder = folder("tableless");
    let library = Library::load(&build(&folder, "some", 16, &[]));
    UNWINDER.refresh();
    for _ in 0..times(100) {
        (library.bare)(untold, 16);
    }
    let place = "function without unwind information";
    // This function and the one that calls it, and nothing beyond.
    assert_eq!(all_found(place, 100).deepest, 3);

    let none = ["-fno-unwind-tables", "-fno-asynchronous-unwind-tables"];
    let library = Library::load(&build(&folder, "none", 16, &none));
    UNWINDER.refresh();
    for _ in 0..times(100) {
        (library.through)(tableless, 16);
    }
    let count = count("library without tables");
    assert_eq!(count.wrong, 0, "{:?}", count.example);
    assert_eq!(count.unknown.get("Frame"), Some(&count.compared));
    std::fs::remove_dir_all(folder).expect("the folder goes");
}

extern "C" fn refreshed() {
    compare("library");
}

extern "C" fn stale() {
    compare("library, not refreshed");
}

#[test]
fn a_library_that_comes_and_goes_is_walked_after_a_refresh() {
    let _alone = ALONE.lock().unwrap_or_else(|error| error.into_inner());
    let folder = folder("refreshed");
    let libraries = [
        build(&folder, "small", 16, &[]),
        build(&folder, "large", 96, &[]),
        build(&folder, "framed", 48, &["-fno-omit-frame-pointer"]),
    ];
    let mut addresses = Vec::new();
    for turn in 0..times(200) {
        let library = Library::load(&libraries[turn % 3]);
        UNWINDER.refresh();
        addresses.push(library.through as usize);
        for size in [16, 48, 16, 400] {
            (library.through)(refreshed, size);
            (library.dynamic)(refreshed, size);
        }
    }
    all_found("library", 1_600);
    // Otherwise nothing was stale.
    let first = addresses[0];
    assert!(addresses[1..].contains(&first), "each has its own place");
    std::fs::remove_dir_all(folder).expect("the folder goes");
}

#[test]
fn without_a_refresh_a_stale_rule_is_harmless_and_its_stack_right_again_after() {
    let _alone = ALONE.lock().unwrap_or_else(|error| error.into_inner());
    let folder = folder("stale");
    let libraries = [
        build(&folder, "small", 16, &[]),
        build(&folder, "large", 96, &[]),
    ];
    for turn in 0..times(100) {
        let library = Library::load(&libraries[turn % 2]);
        (library.through)(stale, 16);
        (library.dynamic)(stale, 16);
    }
    // Wrong or unknown, as it comes: what counts is that we are still here.
    count("library, not refreshed");
    let library = Library::load(&libraries[0]);
    UNWINDER.refresh();
    (library.through)(refreshed, 16);
    let count = count("library");
    assert_eq!(count.wrong, 0, "{:?}", count.example);
    std::fs::remove_dir_all(folder).expect("the folder goes");
}
