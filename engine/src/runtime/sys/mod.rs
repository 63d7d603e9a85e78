//! Everything that depends on the operating system or the processor's registers.

mod interrupted;
mod linux;
pub(super) mod racing;
mod registers;
mod x86_64;

pub use interrupted::Interrupted;
pub(super) use linux::*;
pub(super) use registers::*;
pub(super) use x86_64::*;
