//! Everything that depends on the operating system or the processor's registers.

mod linux;
mod registers;
mod x86_64;

pub(super) use linux::*;
pub(super) use registers::*;
pub(super) use x86_64::*;
