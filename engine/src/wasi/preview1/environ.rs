//! Environment variables.

use super::args::{write_sizes, write_strings};
use super::errno::Errno;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;

/// `environ_get`: pointers to `environ`, bytes of the form `NAME=value` to `environ_buf`.
///
/// # Errors
/// An address that cannot be written.
pub fn environ_get(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    environ: u32,
    environ_buf: u32,
) -> Result<(), Errno> {
    write_strings(memory, &ctx.env, environ, environ_buf)
}

/// `environ_sizes_get`: how many variables, and their bytes together with NULs.
///
/// # Errors
/// An address that cannot be written.
pub fn environ_sizes_get(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    count: u32,
    size: u32,
) -> Result<(), Errno> {
    write_sizes(memory, &ctx.env, count, size)
}
