//! From a return address to the rule of its frame, out of `.eh_frame_hdr` and `.eh_frame`.
//!
//! Responsible for reading tables, which are plain bytes here and may be corrupt: then the rule is
//! unknown. Not responsible for where the bytes come from, and without `unsafe`.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameOffset, EndianSlice, NativeEndian, Register,
    RegisterRule, UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow,
};

use super::arch::Arch;

/// How to get from a frame to its caller: 29 bits.
///
/// | bits | |
/// |---|---|
/// | 0 | whether the frame's end is counted from the frame pointer, else from the stack pointer |
/// | 1 to 6 | the caller's frame pointer is saved that many words below the frame's end; 0: unchanged |
/// | 7 to 12 | the return address is that many words below the frame's end |
/// | 13 to 28 | how many words the frame's end lies above its register; 0: no such rule |
///
/// What does not fit is unknown: frames above 512 KiB, and registers saved more than 504 bytes below
/// the frame's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule(u32);

const WORD: i64 = 8;
const SAVED_MAX: i64 = (1 << 6) - 1;
const FRAME_MAX: i64 = (1 << 16) - 1;

impl Rule {
    pub(super) const BITS: u32 = 29;
    /// There is no way to the caller from here.
    pub(super) const UNKNOWN: Rule = Rule(1 << 1);
    /// The outermost frame of a thread, or one that nothing is known of.
    pub(super) const END: Rule = Rule(2 << 1);

    /// `None` for zero, which is no rule.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Rule(bits as u32))
    }

    pub(super) fn bits(self) -> u64 {
        u64::from(self.0)
    }

    fn frame(from_fp: bool, frame: i64, fp: i64, ra: i64) -> Option<Self> {
        let in_words = |bytes: i64, max: i64| {
            (bytes % WORD == 0 && (0..=max).contains(&(bytes / WORD)))
                .then_some((bytes / WORD) as u32)
        };
        let frame = in_words(frame, FRAME_MAX)?;
        let fp = in_words(fp, SAVED_MAX)?;
        let ra = in_words(ra, SAVED_MAX)?;
        // Without a frame there is nothing that grows, and a walk might not end.
        (frame > 0 && ra > 0).then_some(Rule(frame << 13 | ra << 7 | fp << 1 | from_fp as u32))
    }

    pub(super) fn is_frame(self) -> bool {
        self.0 >> 13 != 0
    }

    pub(super) fn is_from_fp(self) -> bool {
        self.0 & 1 != 0
    }

    /// Bytes from the register to the frame's end.
    pub(super) fn size(self) -> usize {
        (self.0 >> 13) as usize * WORD as usize
    }

    /// Bytes below the frame's end, 0 when the frame pointer is unchanged.
    pub(super) fn saved_fp(self) -> usize {
        (self.0 >> 1 & SAVED_MAX as u32) as usize * WORD as usize
    }

    /// Bytes below the frame's end.
    pub(super) fn return_address(self) -> usize {
        (self.0 >> 7 & SAVED_MAX as u32) as usize * WORD as usize
    }
}

/// Bytes and the address at which the process has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) address: usize,
}

impl<'a> Bytes<'a> {
    fn from(self, address: usize) -> Option<Self> {
        let bytes = self.bytes.get(address.checked_sub(self.address)?..)?;
        Some(Bytes { bytes, address })
    }

    fn i32_at(self, at: usize) -> Option<i32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        Some(i32::from_ne_bytes(bytes.try_into().ok()?))
    }
}

/// The rule of the frame with that return address.
///
/// `header` are the bytes of `.eh_frame_hdr`; `segment` gives the bytes of the segment that holds an
/// address, from its first byte to its last.
pub(super) fn compute<'a, A: Arch>(
    return_address: usize,
    header: Bytes<'a>,
    segment: impl Fn(usize) -> Option<Bytes<'a>>,
) -> Rule {
    find::<A>(return_address, header, segment).unwrap_or(Rule::UNKNOWN)
}

fn find<'a, A: Arch>(
    return_address: usize,
    header: Bytes<'a>,
    segment: impl Fn(usize) -> Option<Bytes<'a>>,
) -> Option<Rule> {
    // A call may be the last instruction of its function: what is asked for is the call.
    let call = return_address.checked_sub(1)?;
    let (frame_section, entry) = search(call, header)?;
    let section = segment(frame_section)?.from(frame_section)?;
    let offset = entry.checked_sub(section.address)?;
    let mut frame = EhFrame::new(section.bytes, NativeEndian);
    frame.set_address_size(8);
    frame.set_vendor(A::VENDOR);
    let bases = BaseAddresses::default().set_eh_frame(section.address as u64);
    row::<A>(&frame, &bases, offset, call)
}

/// The addresses of `.eh_frame` and of the entry that covers `call`.
///
/// Reads the one form that all linkers write (LSB Core, 10.6.2, `.eh_frame_hdr`): a sorted table of
/// pairs of 32-bit distances from the header.
fn search(call: usize, header: Bytes<'_>) -> Option<(usize, usize)> {
    const RELATIVE_TO_ITSELF: u8 = 0x1b;
    const COUNT_IN_32_BITS: u8 = 0x03;
    const RELATIVE_TO_HEADER: u8 = 0x3b;
    let [1, RELATIVE_TO_ITSELF, COUNT_IN_32_BITS, RELATIVE_TO_HEADER] = header.bytes.get(..4)?
    else {
        return None;
    };
    let away = |from: usize, at: usize| -> Option<usize> {
        from.checked_add_signed(header.i32_at(at)? as isize)
    };
    let frame_section = away(header.address.checked_add(4)?, 4)?;
    let count = header.i32_at(8)? as u32 as usize;
    let table = 12;
    let room = header.bytes.len().checked_sub(table)? / 8;
    if count > room {
        return None;
    }
    let starts_at = |index: usize| away(header.address, table + index * 8);
    // The last one that starts at or before the call.
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if starts_at(middle)? <= call {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let entry = away(header.address, table + low.checked_sub(1)? * 8 + 4)?;
    Some((frame_section, entry))
}

type Slice<'a> = EndianSlice<'a, NativeEndian>;

/// Room for the rules of a row, on the stack: tables are read where nothing may be allocated.
/// A row has as many rules as a function saves registers.
struct OnStack;

impl UnwindContextStorage<usize> for OnStack {
    type Rules = [(Register, RegisterRule<usize>); 32];
    type Stack = [UnwindTableRow<usize, Self>; 4];
}

fn row<A: Arch>(
    frame: &EhFrame<Slice<'_>>,
    bases: &BaseAddresses,
    offset: usize,
    call: usize,
) -> Option<Rule> {
    let entry = frame
        .fde_from_offset(bases, EhFrameOffset(offset), EhFrame::cie_from_offset)
        .ok()?;
    // A function without unwind information ends the stack for the system's unwinder too: the `main`
    // of a program that aborts on panic is one.
    if !entry.contains(call as u64) {
        return Some(Rule::END);
    }
    // A signal interrupts anywhere: its address is no return address, and the frame below it may be
    // half made.
    if entry.is_signal_trampoline() {
        return None;
    }
    let mut context = UnwindContext::<usize, OnStack>::new_in();
    let row = entry
        .unwind_info_for_address(frame, bases, &mut context, call as u64)
        .ok()?;
    translate::<A>(row, entry.cie().return_address_register())
}

fn translate<A: Arch>(row: &UnwindTableRow<usize, OnStack>, ra: Register) -> Option<Rule> {
    if ra != A::RA {
        return None;
    }
    let ra = match row.register(A::RA) {
        // How the first frame of a thread is marked.
        Some(RegisterRule::Undefined) => return Some(Rule::END),
        Some(RegisterRule::Offset(offset)) => offset.checked_neg()?,
        _ => return None,
    };
    let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
        return None;
    };
    if register != A::SP && register != A::FP {
        return None;
    }
    // The stack pointer of the caller is the frame's end, and nothing else.
    if !matches!(row.register(A::SP), None | Some(RegisterRule::SameValue)) {
        return None;
    }
    let fp = match row.register(A::FP) {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => 0,
        Some(RegisterRule::Offset(offset)) => offset.checked_neg().filter(|&saved| saved > 0)?,
        Some(_) => return None,
    };
    Rule::frame(register == A::FP, offset, fp, ra)
}
