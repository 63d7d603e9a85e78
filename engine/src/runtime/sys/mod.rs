//! Everything that depends on the operating system or the processor's registers.

mod linux;
pub(super) mod racing;
mod registers;
mod x86_64;

pub(super) use linux::*;
pub(super) use registers::*;
pub(super) use x86_64::*;
