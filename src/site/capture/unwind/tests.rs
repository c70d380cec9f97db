//! Unwind tables, sound and corrupt, of both processors.
//!
//! Responsible for what needs no stack. The walk of real stacks is compared with the system's unwinder
//! by tests/capture.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::arch::{Aarch64, Arch, X86_64};
use super::rule::{Bytes, Rule, compute};
use super::thread::Registers;
use super::walk::{Lost, Trail, walk};

const TEXT: usize = 0x5555_0000;
const FRAME: usize = 0x5556_0000;
const HEADER: usize = 0x5556_8000;

/// `.eh_frame_hdr` and `.eh_frame`, as a linker leaves them.
#[derive(Clone, Debug)]
struct Tables {
    header: Vec<u8>,
    frame: Vec<u8>,
}

impl Tables {
    /// From what an assembler made: each function's entry is at an offset, and its first address is
    /// still to be filled in, 8 bytes behind.
    fn link(frame: &[u8], functions: &[(usize, usize)]) -> Self {
        let away = |from: usize, to: usize| (to.wrapping_sub(from) as i32).to_ne_bytes();
        let mut frame = frame.to_vec();
        let mut header = vec![1, 0x1b, 0x03, 0x3b];
        header.extend(away(HEADER + 4, FRAME));
        header.extend((functions.len() as u32).to_ne_bytes());
        for &(entry, start) in functions {
            let at = entry + 8;
            frame[at..at + 4].copy_from_slice(&away(FRAME + at, TEXT + start));
            header.extend(away(HEADER, TEXT + start));
            header.extend(away(HEADER, FRAME + entry));
        }
        Self { header, frame }
    }

    /// The rule of a return address that lies at this offset of the text.
    fn rule<A: Arch>(&self, at: usize) -> Rule {
        let header = Bytes {
            bytes: &self.header,
            address: HEADER,
        };
        let segment = |address: usize| {
            (FRAME..FRAME + self.frame.len())
                .contains(&address)
                .then_some(Bytes {
                    bytes: &self.frame,
                    address: FRAME,
                })
        };
        compute::<A>(TEXT + at, header, segment)
    }
}

/// What a rule says: from the frame pointer, frame's size, where the frame pointer is saved, where the
/// return address is.
fn parts(rule: Rule) -> (bool, usize, usize, usize) {
    assert!(rule.is_frame(), "{rule:?}");
    let (size, fp) = (rule.size(), rule.saved_fp());
    (rule.is_from_fp(), size, fp, rule.return_address())
}

/// Four functions of aarch64, as `llvm-mc` 14 wrote them from:
///
/// ```text
///  0 f: sub sp, 48; stp x29, x30, [sp, 32]; add x29, sp, 32; bl; …       measured from the frame pointer
/// 1c g: paciasp; stp x29, x30, [sp, -64]!; mov x29, sp; str x19; bl; …  a signed return address
/// 3c h: str x30, [sp, -16]!; bl; …                                      no frame pointer
/// 4c    .cfi_undefined x30; bl                                          the first of a thread
/// ```
fn aarch64() -> Tables {
    #[rustfmt::skip]
    let frame = [
        0x10, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x7a, 0x52, 0, 0x01, 0x7c, 0x1e, 0x01,
        0x1b, 0x0c, 0x1f, 0, 0x24, 0, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0,
        0x1c, 0, 0, 0, 0, 0x44, 0x0e, 0x30, 0x48, 0x0c, 0x1d, 0x10, 0x9e, 0x02, 0x9d, 0x04,
        0x44, 0x0c, 0x1f, 0x30, 0x48, 0x0e, 0, 0xde, 0xdd, 0, 0, 0, 0x24, 0, 0, 0,
        0x40, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0x44, 0x2d, 0x44,
        0x0e, 0x40, 0x9d, 0x10, 0x9e, 0x0e, 0x48, 0x93, 0x0c, 0x48, 0xde, 0xdd, 0xd3, 0x0e, 0, 0x44,
        0x2d, 0, 0, 0, 0x18, 0, 0, 0, 0x68, 0, 0, 0, 0, 0, 0, 0,
        0x10, 0, 0, 0, 0, 0x44, 0x0e, 0x10, 0x9e, 0x04, 0x48, 0x0e, 0, 0xde, 0, 0,
        0x14, 0, 0, 0, 0x84, 0, 0, 0, 0, 0, 0, 0, 0x04, 0, 0, 0,
        0, 0x07, 0x1e, 0, 0, 0, 0, 0,
    ];
    Tables::link(
        &frame,
        &[(0x14, 0), (0x3c, 0x1c), (0x64, 0x3c), (0x80, 0x4c)],
    )
}

/// Entries of x86_64: what a compiler writes, and one of each kind that has no rule.
fn x86_64() -> Tables {
    let mut frame = vec![
        // CIE: "zR", code 1, data -8, return address 16, pc-relative; CFA = rsp + 8, ra at CFA - 8.
        0x14, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 0x10, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0,
        0,
    ];
    // A signal's: "zRS".
    let signal = frame.len();
    frame.extend([
        0x14, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', b'S', 0, 1, 0x78, 0x10, 1, 0x1b,
    ]);
    frame.extend([0x0c, 7, 8, 0x90, 1, 0]);
    let mut functions = Vec::new();
    let mut add = |cie: usize, instructions: &[u8]| {
        let entry = frame.len();
        let start = functions.len() * 0x20;
        let mut body = Vec::new();
        body.extend(((entry + 4 - cie) as u32).to_ne_bytes());
        body.extend([0; 4]);
        body.extend(0x20u32.to_ne_bytes());
        body.push(0);
        body.extend(instructions);
        body.resize(body.len().next_multiple_of(8) + 4, 0);
        frame.extend((body.len() as u32).to_ne_bytes());
        frame.extend(body);
        functions.push((entry, start));
    };
    // 00: push rbp; from offset 1: CFA = rsp + 16, rbp at CFA - 16; from 5: CFA = rsp + 64.
    add(0, &[0x41, 0x0e, 16, 0x86, 2, 0x44, 0x0e, 64]);
    // 20: the same with a frame pointer.
    add(0, &[0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6]);
    // 40: the return address is undefined: the first frame of a thread.
    add(0, &[0x07, 0x10]);
    // 60: the CFA is an expression.
    add(0, &[0x0f, 2, 0x77, 8]);
    // 80: a signal's frame.
    add(signal, &[]);
    // a0: rbp by an expression; c0: CFA from another register; e0: an unaligned frame.
    add(0, &[0x10, 6, 2, 0x77, 8]);
    add(0, &[0x0c, 10, 0]);
    add(0, &[0x0e, 13]);
    // 100: a frame of 1 MiB; 120: an instruction that nobody knows; 140: no frame at all.
    add(0, &[0x0e, 0x80, 0x80, 0x40]);
    add(0, &[0x3f, 0x3f]);
    add(0, &[0x0c, 7, 0]);
    // 160: restores what was never remembered; 180: remembers without an end.
    add(0, &[0x0b]);
    add(0, &[0x0a; 16]);
    // 1a0: an expression that is longer than the table.
    add(0, &[0x0f, 0xff, 0xff, 0xff, 0x7f]);
    Tables::link(&frame, &functions)
}

#[test]
fn the_rules_of_x86_64_are_what_the_tables_say() {
    let tables = x86_64();
    let rule = |at| tables.rule::<X86_64>(at);
    assert_eq!(parts(rule(0x01)), (false, 8, 0, 8));
    // The byte before counts: a call may be the last instruction before something else begins.
    assert_eq!(parts(rule(0x02)), (false, 16, 16, 8));
    assert_eq!(parts(rule(0x06)), (false, 64, 16, 8));
    assert_eq!(parts(rule(0x20)), (false, 64, 16, 8));
    assert_eq!(parts(rule(0x30)), (true, 16, 16, 8));
    assert_eq!(rule(0x50), Rule::END);
}

#[test]
fn what_is_no_plain_rule_is_unknown() {
    let tables = x86_64();
    for at in (0x70..0x1c0).step_by(0x20) {
        assert_eq!(tables.rule::<X86_64>(at), Rule::UNKNOWN, "{at:x}");
    }
    // Behind the last function: nothing is known of who called, as for the system's unwinder.
    for at in [0x1c1, 0x10_0000] {
        assert_eq!(tables.rule::<X86_64>(at), Rule::END, "{at:x}");
    }
    // Before the first, and without any table.
    assert_eq!(tables.rule::<X86_64>(0), Rule::UNKNOWN);
    let nothing = Tables {
        header: Vec::new(),
        frame: Vec::new(),
    };
    assert_eq!(nothing.rule::<X86_64>(1), Rule::UNKNOWN);
}

#[test]
fn the_rules_of_aarch64_are_what_the_tables_say() {
    let tables = aarch64();
    let rule = |at| tables.rule::<Aarch64>(at);
    // Behind the `bl` of each.
    assert_eq!(parts(rule(0x10)), (true, 16, 16, 8));
    assert_eq!(parts(rule(0x30)), (false, 64, 64, 56));
    assert_eq!(parts(rule(0x44)), (false, 16, 0, 16));
    assert_eq!(rule(0x50), Rule::END);
    // Its extensions are not those of another processor.
    assert_eq!(tables.rule::<X86_64>(0x30), Rule::UNKNOWN);
}

/// A stack as it would lie in memory: `h` was called by `g`, `g` by `f`, `f` by the first function.
#[test]
fn a_stack_of_aarch64_is_walked_past_signed_return_addresses() {
    const SP: usize = 0x7fff_0000;
    let mut words = [0usize; 32];
    let signed = |at: usize| 0x00a5_0000_0000_0000 | (TEXT + at);
    // h: 16 bytes, the return address at its lower end.
    words[0] = TEXT + 0x30;
    // g: 64 bytes, the frame pointer and the return address at its lower end.
    words[2] = SP + 16 + 64 + 32;
    words[3] = signed(0x10);
    // f: 48 bytes, 16 bytes above its frame pointer.
    words[(16 + 64 + 32) / 8] = 0;
    words[(16 + 64 + 32) / 8 + 1] = signed(0x50);
    let tables = aarch64();
    let rule = |address: usize| tables.rule::<Aarch64>(address - TEXT);
    let load = |distance: usize| words.get(distance / 8).copied();
    let from = Registers {
        pc: signed(0x44),
        sp: SP,
        fp: 0x1234,
    };
    let mut trail = Trail::new();
    assert_eq!(walk::<Aarch64>(from, rule, load, &mut trail), Ok(()));
    let expected = [0x30, 0x10, 0x50].map(|at| TEXT + at);
    assert_eq!(trail.addresses(), expected);

    // The same with a frame pointer that leads nowhere.
    words[2] = SP + (1 << 40);
    let load = |distance: usize| words.get(distance / 8).copied();
    let mut trail = Trail::new();
    assert_eq!(walk::<Aarch64>(from, rule, load, &mut trail), Err(Lost));
}

#[test]
fn a_walk_over_noise_ends() {
    let tables = x86_64();
    let rule = |address: usize| tables.rule::<X86_64>(address % 0x200);
    for seed in 0..2_000usize {
        let noise = |distance: usize| {
            let mixed = (distance ^ seed << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            Some(mixed ^ mixed >> 29)
        };
        let from = Registers {
            pc: TEXT + 0x10,
            sp: 0x1000,
            fp: noise(seed).unwrap_or_default(),
        };
        let mut trail = Trail::new();
        // Whatever it finds, it ends.
        let _ = walk::<X86_64>(from, rule, noise, &mut trail);
        assert!(trail.addresses().len() <= super::FRAMES);
    }
}

/// Asks for every offset, and for some beyond; none may take long. The bound is generous because a
/// machine may be busy, and what is feared has no end.
fn ask_everywhere<A: Arch>(tables: &Tables) {
    let start = Instant::now();
    for at in (0..0x240)
        .step_by(5)
        .chain([usize::MAX - TEXT, usize::MAX / 2])
    {
        tables.rule::<A>(at);
    }
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(30), "{taken:?}");
}

/// Bytes that mean something in a table, and any.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![
            0, 1, 0x7f, 0x80, 0xff, 0x0a, 0x0b, 0x0c, 0x0f, 0x10, 0x16, 0x2d
        ]),
    ]
}

fn changed(tables: &Tables, changes: &[(bool, usize, u8)]) -> Tables {
    let mut tables = tables.clone();
    for &(header, at, byte) in changes {
        let bytes = match header {
            true => &mut tables.header,
            false => &mut tables.frame,
        };
        let at = at % bytes.len();
        bytes[at] = byte;
    }
    tables
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_with_changed_bytes_give_a_rule_or_none(
        changes in prop::collection::vec((any::<bool>(), any::<usize>(), byte()), 1..12),
    ) {
        ask_everywhere::<X86_64>(&changed(&x86_64(), &changes));
        ask_everywhere::<Aarch64>(&changed(&aarch64(), &changes));
    }

    #[test]
    fn tables_that_are_cut_give_a_rule_or_none(header in 0usize..200, frame in 0usize..600) {
        for mut tables in [x86_64(), aarch64()] {
            tables.header.truncate(header);
            tables.frame.truncate(frame);
            ask_everywhere::<X86_64>(&tables);
            ask_everywhere::<Aarch64>(&tables);
        }
    }

    #[test]
    fn tables_of_noise_give_a_rule_or_none(
        header in prop::collection::vec(byte(), 0..200),
        frame in prop::collection::vec(byte(), 0..400),
        known in any::<bool>(),
    ) {
        let mut header = header;
        if known {
            // Otherwise hardly any would get past the first word.
            header.splice(..header.len().min(12), x86_64().header[..12].to_vec());
        }
        ask_everywhere::<X86_64>(&Tables { header, frame });
    }
}

/// The tables of this very program, which has functions of every kind: each sound entry is read, and
/// none of the same with changed bytes does harm.
#[test]
fn the_tables_of_a_real_program_are_read_sound_and_corrupt() {
    let (header, (base, mut copy)) = super::modules::tables_of_program().expect("unwind tables");
    let word = |at: usize| i32::from_ne_bytes(header.1[at..at + 4].try_into().expect("4 bytes"));
    let count = word(8) as usize;
    assert!(count > 1_000, "{count}");
    let ask = |copy: &[u8], address: usize| {
        let header = Bytes {
            bytes: &header.1,
            address: header.0,
        };
        compute::<X86_64>(address, header, |asked| {
            (base..base + copy.len()).contains(&asked).then_some(Bytes {
                bytes: copy,
                address: base,
            })
        })
    };
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let start = Instant::now();
    let mut known = 0;
    const CASES: usize = 20_000;
    for _ in 0..CASES {
        let index = 12 + random(count) * 8;
        let function = header.0.wrapping_add_signed(word(index) as isize);
        let entry = header.0.wrapping_add_signed(word(index + 4) as isize) - base;
        known += usize::from(ask(&copy, function + 1).is_frame());
        let cie = entry + 4
            - u32::from_ne_bytes(copy[entry + 4..entry + 8].try_into().expect("4 bytes")) as usize;
        let changes: [(usize, u8); 3] = std::array::from_fn(|turn| {
            let at = match turn {
                0 => cie + random(32),
                _ => entry + random(48),
            };
            (at.min(copy.len() - 1), random(256) as u8)
        });
        let before = changes.map(|(at, _)| copy[at]);
        for (at, byte) in changes {
            copy[at] = byte;
        }
        for away in [1, 2, 5, 30, 200] {
            ask(&copy, function + away);
        }
        for ((at, _), byte) in changes.into_iter().zip(before).rev() {
            copy[at] = byte;
        }
    }
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(120), "{taken:?}");
    // The first byte of a function: its frame is the return address alone.
    assert!(known > CASES * 9 / 10, "{known}");
}
