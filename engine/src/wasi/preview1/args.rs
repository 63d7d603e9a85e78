//! Arguments.

use super::errno::Errno;
use crate::wasi::ctx::{Strings, WasiCtx};
use crate::wasi::guest_mem::GuestMemory;

/// `args_get`: pointers to `argv`, bytes to `argv_buf`.
///
/// # Errors
/// An address that cannot be written.
pub fn args_get(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    argv: u32,
    argv_buf: u32,
) -> Result<(), Errno> {
    write_strings(memory, &ctx.args, argv, argv_buf)
}

/// `args_sizes_get`: how many arguments, and their bytes together with NULs.
///
/// # Errors
/// An address that cannot be written.
pub fn args_sizes_get(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    count: u32,
    size: u32,
) -> Result<(), Errno> {
    write_sizes(memory, &ctx.args, count, size)
}

pub(super) fn write_strings(
    memory: &mut GuestMemory<'_>,
    strings: &Strings,
    pointers: u32,
    buffer: u32,
) -> Result<(), Errno> {
    memory.check_array(pointers, strings.starts.len() as u32, 4, 4)?;
    memory.write_bytes(buffer, &strings.bytes)?;
    for (n, start) in (0..).zip(&strings.starts) {
        memory.write_u32(pointers + 4 * n, buffer + start)?;
    }
    Ok(())
}

pub(super) fn write_sizes(
    memory: &mut GuestMemory<'_>,
    strings: &Strings,
    count: u32,
    size: u32,
) -> Result<(), Errno> {
    memory.check::<4>(size)?;
    memory.write_u32(count, strings.starts.len() as u32)?;
    Ok(memory.write_u32(size, strings.bytes.len() as u32)?)
}
