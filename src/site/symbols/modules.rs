//! The files that the code of this process comes from.
//!
//! Responsible for which file has an address and where in it: build id, the size of its debug
//! information, its symbol table. Reads files, piece by piece, and no memory of the process. Not
//! responsible for lines. Knows Linux only; elsewhere there are no modules.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, SymbolKind};

/// The mapped files of this process, as they are when it is made.
pub(super) struct Modules {
    maps: Vec<Map>,
    program: Option<PathBuf>,
}

/// A span of addresses that shows a file.
#[derive(Debug, PartialEq, Eq)]
struct Map {
    addresses: Range<u64>,
    offset: u64,
    path: PathBuf,
}

impl Modules {
    pub(super) fn read() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self {
            maps: maps.lines().filter_map(Map::of_line).collect(),
            program: fs::read_link("/proc/self/exe").ok(),
        }
    }

    /// Whether anything is known of modules here.
    pub(super) fn are_known(&self) -> bool {
        self.program.is_some() && !self.maps.is_empty()
    }

    fn map(&self, address: usize) -> Option<&Map> {
        let address = address as u64;
        self.maps
            .iter()
            .find(|map| map.addresses.contains(&address))
    }

    pub(super) fn is_programs(&self, address: usize) -> bool {
        let map = self.map(address);
        map.is_some_and(|map| Some(&map.path) == self.program.as_ref())
    }

    /// The path of the module that is no program, with the place of the address in its file.
    pub(super) fn library(&self, address: usize) -> Option<(&Path, u64)> {
        let map = self.map(address)?;
        Some((&map.path, map.in_file(address)))
    }

    /// The program's file, also when its path has gone or shows another one by now.
    pub(super) fn program(&self) -> Option<Program> {
        let path = self.program.as_ref()?;
        Program::read(path, Path::new("/proc/self/exe"))
    }

    /// The program's addresses as its file has them, in order.
    pub(super) fn in_program(&self, program: &Program, addresses: &[usize]) -> Vec<u64> {
        let ours = addresses
            .iter()
            .filter(|address| self.is_programs(**address));
        ours.filter_map(|address| program.stated(self.map(*address)?.in_file(*address)))
            .collect()
    }
}

impl Map {
    /// `5581c0a00000-5581c0a42000 r-xp 00012000 08:01 1234    /usr/bin/orders`
    fn of_line(line: &str) -> Option<Self> {
        let (span, rest) = line.split_once(' ')?;
        let (from, to) = span.split_once('-')?;
        let mut rest = rest.splitn(4, ' ');
        let (_rights, offset, _device) = (rest.next()?, rest.next()?, rest.next()?);
        let (_inode, path) = rest.next()?.split_once(' ')?;
        let path = path.trim_start();
        let number = |text| u64::from_str_radix(text, 16).ok();
        path.starts_with('/').then_some(Self {
            addresses: number(from)?..number(to)?,
            offset: number(offset)?,
            path: path.into(),
        })
    }

    fn in_file(&self, address: usize) -> u64 {
        address as u64 - self.addresses.start + self.offset
    }
}

/// What the program's file says of itself.
pub(super) struct Program {
    /// Without its folders.
    pub(super) name: String,
    pub(super) build_id: Option<String>,
    /// Bytes of debug information, decompressed, wherever it is.
    pub(super) debug: u64,
    segments: Vec<Segment>,
}

struct Segment {
    in_file: Range<u64>,
    address: u64,
}

impl Program {
    fn read(path: &Path, opened_at: &Path) -> Option<Self> {
        let file = ReadCache::new(File::open(opened_at).ok()?);
        let object = object::File::parse(&file).ok()?;
        let build_id = object.build_id().ok().flatten().map(hex);
        let apart = build_id.as_deref().and_then(debug_file);
        let name = path.file_name()?.to_string_lossy();
        Some(Self {
            // What the system appends to the name of a file that is gone.
            name: name.trim_end_matches(" (deleted)").to_string(),
            debug: match apart {
                Some(path) => debug_of(&path)?,
                None => debug_sections(&object),
            },
            build_id,
            segments: segments(&object),
        })
    }

    fn stated(&self, in_file: u64) -> Option<u64> {
        stated(&self.segments, in_file)
    }
}

/// The function that the symbol table of a file has there, as it is written there.
pub(super) fn symbol(path: &Path, in_file: u64) -> Option<Vec<u8>> {
    let file = ReadCache::new(File::open(path).ok()?);
    let object = object::File::parse(&file).ok()?;
    let address = stated(&segments(&object), in_file)?;
    let symbols = object.symbols().chain(object.dynamic_symbols());
    let mut functions = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text);
    let function = functions.find(|symbol| {
        let from = symbol.address();
        (from..from.saturating_add(symbol.size())).contains(&address)
    })?;
    function.name_bytes().ok().map(<[u8]>::to_vec)
}

/// Where the linker put what stands there in the file.
fn stated(segments: &[Segment], in_file: u64) -> Option<u64> {
    let segment = segments
        .iter()
        .find(|segment| segment.in_file.contains(&in_file))?;
    Some(in_file - segment.in_file.start + segment.address)
}

fn segments<'a>(object: &impl Object<'a>) -> Vec<Segment> {
    let segments = object.segments().map(|segment| {
        let (from, size) = segment.file_range();
        Segment {
            in_file: from..from.saturating_add(size),
            address: segment.address(),
        }
    });
    segments.collect()
}

/// Where distributions keep the debug information of stripped programs.
fn debug_file(build_id: &str) -> Option<PathBuf> {
    let (first, rest) = build_id.split_at_checked(2)?;
    let path = PathBuf::from(format!("/usr/lib/debug/.build-id/{first}/{rest}.debug"));
    path.exists().then_some(path)
}

fn debug_of(path: &Path) -> Option<u64> {
    let file = ReadCache::new(File::open(path).ok()?);
    Some(debug_sections(&object::File::parse(&file).ok()?))
}

fn debug_sections<'a>(object: &impl Object<'a>) -> u64 {
    let sections = object.sections().filter(|section| {
        let name = section.name_bytes().unwrap_or_default();
        name.starts_with(b".debug_") || name.starts_with(b".zdebug_")
    });
    let sizes = sections.map(|section| match section.compressed_file_range() {
        Ok(range) => range.uncompressed_size,
        Err(_) => section.size(),
    });
    sizes.fold(0, u64::saturating_add)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_a_file_or_nothing() {
        let map = Map::of_line("1000-3000 r-xp 00012000 08:01 1234       /usr/bin/a b");
        let map = map.expect("a file");
        assert_eq!(map.addresses, 0x1000..0x3000);
        assert_eq!(map.path, Path::new("/usr/bin/a b"));
        assert_eq!(map.in_file(0x1010), 0x12010);
        assert_eq!(Map::of_line("1000-3000 rw-p 00000000 00:00 0 "), None);
        assert_eq!(
            Map::of_line("1000-3000 rw-p 00000000 00:00 0   [heap]"),
            None
        );
        assert_eq!(Map::of_line(""), None);
    }

    #[test]
    fn an_address_is_where_the_linker_put_it_and_not_where_it_stands_in_the_file() {
        let segment = |from, to, address| Segment {
            in_file: from..to,
            address,
        };
        let segments = [segment(0, 0x100, 0), segment(0x100, 0x300, 0x1100)];
        assert_eq!(stated(&segments, 0x40), Some(0x40));
        assert_eq!(stated(&segments, 0x140), Some(0x1140));
        assert_eq!(stated(&segments, 0x300), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_program_is_known_and_told_from_its_libraries() {
        let modules = Modules::read();
        let here = hex as *const () as usize;
        assert!(modules.is_programs(here));
        let program = modules.program().expect("its file");
        assert!(program.debug > 1 << 20, "{} bytes of lines", program.debug);
        assert_eq!(modules.in_program(&program, &[here]).len(), 1);
    }

    #[cfg(all(
        target_os = "linux",
        target_env = "gnu",
        not(target_feature = "crt-static")
    ))]
    #[test]
    fn a_function_of_a_library_is_found_in_its_symbol_table() {
        let modules = Modules::read();
        let getpid = libc::getpid as *const () as usize;
        assert!(!modules.is_programs(getpid));
        let (path, in_file) = modules.library(getpid).expect("the C library");
        let name = symbol(path, in_file).expect("a symbol");
        assert!(
            name.ends_with(b"getpid"),
            "{}",
            String::from_utf8_lossy(&name)
        );
    }
}
