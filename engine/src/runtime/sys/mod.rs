//! Everything that depends on the operating system or the processor's registers.

mod linux;
pub(super) mod racing;

pub(super) use linux::*;
