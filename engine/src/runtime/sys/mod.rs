//! Everything that depends on the operating system or the processor's registers.

mod linux;
pub(super) mod racing;
mod registers;

pub(super) use linux::*;
pub(super) use registers::*;
