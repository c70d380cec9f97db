//! What differs between processors.
//!
//! Responsible for register numbers and for the shape of a return address. All of them are compiled
//! everywhere, so that their rules are tested everywhere; `Native` is the one that walks.

use gimli::{Register, Vendor};

pub(super) trait Arch {
    /// DWARF's number of the stack pointer.
    const SP: Register;
    /// DWARF's number of the frame pointer.
    const FP: Register;
    /// DWARF's number of the return address.
    const RA: Register;
    /// Whose extensions of the unwind instructions are understood.
    const VENDOR: Vendor;
    /// How many low bits of an instruction's address are always zero.
    const ALIGNED: u32;

    /// The address without what is not part of it.
    fn strip(return_address: usize) -> usize;
}

#[derive(Debug)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) struct X86_64;

impl Arch for X86_64 {
    const SP: Register = gimli::X86_64::RSP;
    const FP: Register = gimli::X86_64::RBP;
    const RA: Register = gimli::X86_64::RA;
    const VENDOR: Vendor = Vendor::Default;
    const ALIGNED: u32 = 0;

    fn strip(return_address: usize) -> usize {
        return_address
    }
}

#[derive(Debug)]
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
pub(super) struct Aarch64;

impl Arch for Aarch64 {
    const SP: Register = gimli::AArch64::SP;
    const FP: Register = gimli::AArch64::X29;
    const RA: Register = gimli::AArch64::X30;
    const VENDOR: Vendor = Vendor::AArch64;
    const ALIGNED: u32 = 2;

    /// A signed return address has its signature above the 48 bits of a user's address. It is only
    /// read and never returned to, so that nobody needs to check the signature.
    fn strip(return_address: usize) -> usize {
        return_address & ((1 << 48) - 1)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) type Native = X86_64;
#[cfg(target_arch = "aarch64")]
pub(super) type Native = Aarch64;
