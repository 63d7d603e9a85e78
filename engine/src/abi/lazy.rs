//! Code that is made while it runs: what the maker and the runner of a lazy image agree upon.
//!
//! A lazy image is a file that two processes map: the compiler writes it, the guest reads and executes
//! it. Its text begins with a prologue and a [`Stub`] for each defined function, then come the
//! trampolines, then room for code. Every call of a function, direct or through a reference, goes to
//! its stub, so that a function has one address for good:
//!
//! ```text
//!   stub n + 0   mov eax, n          asks for function n:
//!          + 5   jmp ASK             or ASK_FOR_MANY
//!          + 10  nop
//!   entry  + 11  jmp rel32           first to `stub n + 0`, later to the function's code
//! ```
//!
//! The operand of the last jump is four bytes at a multiple of four. The compiler replaces it by one
//! store after all of the code lies there: whoever executes the stub at that moment goes to either
//! place, and both are right. Nothing else that is executed is ever changed.
//!
//! For each function that has code there is an entry in the image's section `LazyFuncs`, in the order
//! of their code, and its tables in `LazyTables`:
//!
//! ```text
//!   LazyFuncs    u32 number of entries; from 16 on (u32 start, u32 length, u32 function, u32 tables)
//!   tables       five u32: traps, addresses, sites, clauses, bytes of all of it; then as in the
//!                sections of an image: TrapOffsets, AddressOffsets, AddressPositions, CatchSites,
//!                CatchFrames, Catches, TrapCodes. Offsets in it count from the function's code.
//! ```
//!
//! The number of entries is written last, so that what it counts is complete.
//!
//! # Between the two processes
//!
//! A socket that keeps messages apart. When the image can be mapped, the compiler sends the one byte
//! [`READY`]. From then on the guest sends a function's number (`u32`, little endian) and gets
//! [`READY`] when the stub leads to its code, or else a sentence that says why there is none.

/// Says that what was asked for is there.
pub const READY: u8 = 0;
/// Longest answer in bytes.
pub const MAX_ANSWER: usize = 1024;

/// Offset in the text of what stubs jump to: it jumps on to [`CTX_LAZY`](super::layout::CTX_LAZY) of
/// the context, with the context in `r11`. The context is the first parameter.
pub const ASK: u32 = 0;
/// The same for functions whose first parameter says where results go; the context is the second.
pub const ASK_FOR_MANY: u32 = 8;
/// Offset in the text of what is called in place of a function that cannot be had: a trap
/// [`Host`](super::trap::TrapKind::Host) in a frame of its own.
pub const FAIL: u32 = 16;
/// Offset in [`PROLOGUE`] of the trapping instruction.
pub const FAIL_TRAP: u32 = FAIL + 4;
/// Offset in the text of the first stub.
pub const STUBS: u32 = 32;
/// Bytes of a stub.
pub const STUB_SIZE: u32 = 16;
/// Where a stub is entered.
pub const STUB_ENTRY: u32 = 11;
/// The operand of its jump.
const STUB_OPERAND: u32 = 12;
/// The operand that leads to the stub's beginning.
pub const UNMADE: i32 = -(STUB_SIZE as i32);

/// Offset of the first entry of `LazyFuncs`.
pub const ENTRIES: usize = 16;
/// Bytes of an entry.
pub const ENTRY_SIZE: usize = 16;
/// Bytes of what comes before the tables of a function.
pub const TABLES_HEAD: usize = 20;

/// The text before the stubs.
pub const PROLOGUE: [u8; STUBS as usize] = {
    let mut text = [0xcc; STUBS as usize];
    // mov r11, rdi; jmp [r11 + CTX_LAZY]
    let ask = [0x49, 0x89, 0xfb, 0x41, 0xff, 0x63, super::layout::CTX_LAZY as u8];
    // mov r11, rsi
    let from_second = 0xf3;
    // push rbp; mov rbp, rsp; ud2
    let fail = [0x55, 0x48, 0x89, 0xe5, 0x0f, 0x0b];
    let mut n = 0;
    while n < ask.len() {
        text[ASK as usize + n] = ask[n];
        text[ASK_FOR_MANY as usize + n] = ask[n];
        n += 1;
    }
    text[ASK_FOR_MANY as usize + 2] = from_second;
    n = 0;
    while n < fail.len() {
        text[FAIL as usize + n] = fail[n];
        n += 1;
    }
    text
};

/// The place of a defined function's stub; offsets are in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stub(u32);

impl Stub {
    /// That of a function by its number among the defined ones, which are fewer than 2^20.
    #[must_use]
    pub fn of(func: u32) -> Stub {
        Stub(STUBS + func * STUB_SIZE)
    }

    /// Where the function is called.
    #[must_use]
    pub fn entry(self) -> u32 {
        self.0 + STUB_ENTRY
    }

    /// Where the operand lies that leads to its code; a multiple of four.
    #[must_use]
    pub fn operand(self) -> u32 {
        self.0 + STUB_OPERAND
    }

    /// The operand that leads to code.
    #[must_use]
    pub fn operand_to(self, code: u32) -> i32 {
        code.wrapping_sub(self.0 + STUB_SIZE).cast_signed()
    }

    /// The bytes of a stub that leads nowhere yet; `ask` is [`ASK`] or [`ASK_FOR_MANY`].
    #[must_use]
    pub fn bytes(self, ask: u32) -> [u8; STUB_SIZE as usize] {
        let number = (self.0 - STUBS) / STUB_SIZE;
        let ask = ask.wrapping_sub(self.0 + 10);
        let mut bytes = [0x90; STUB_SIZE as usize];
        bytes[0] = 0xb8;
        bytes[1..5].copy_from_slice(&number.to_le_bytes());
        bytes[5] = 0xe9;
        bytes[6..10].copy_from_slice(&ask.to_le_bytes());
        bytes[11] = 0xe9;
        bytes[12..16].copy_from_slice(&UNMADE.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a jump of five bytes at `at` leads.
    fn target(at: u32, jump: &[u8]) -> u32 {
        assert_eq!(jump[0], 0xe9);
        let operand = u32::from_le_bytes([jump[1], jump[2], jump[3], jump[4]]);
        (at + 5).wrapping_add(operand)
    }

    #[test]
    fn a_stub_asks_first_and_can_lead_to_code() {
        for (func, ask) in [(0, ASK), (1, ASK_FOR_MANY), (1000, ASK)] {
            let stub = Stub::of(func);
            let start = STUBS + func * STUB_SIZE;
            let bytes = stub.bytes(ask);
            assert_eq!(bytes[1..5], func.to_le_bytes());
            assert_eq!(target(start + 5, &bytes[5..]), ask);
            assert_eq!(target(stub.entry(), &bytes[11..]), start);
            assert!(stub.operand().is_multiple_of(4));
            let mut made = bytes;
            made[12..].copy_from_slice(&stub.operand_to(0x12345).to_le_bytes());
            assert_eq!(target(stub.entry(), &made[11..]), 0x12345);
        }
    }

    #[test]
    fn the_prologue_reads_the_field_that_contexts_have() {
        assert_eq!(PROLOGUE[..7], [0x49, 0x89, 0xfb, 0x41, 0xff, 0x63, 56]);
        assert_eq!(PROLOGUE[8..15], [0x49, 0x89, 0xf3, 0x41, 0xff, 0x63, 56]);
        assert_eq!(PROLOGUE[FAIL_TRAP as usize..][..2], [0x0f, 0x0b]);
        const { assert!(crate::abi::layout::CTX_LAZY < 128) };
    }
}
