//! Clocks.

use super::errno::Errno;
use super::types;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;

/// `clock_res_get`: a clock's resolution in nanoseconds.
///
/// # Errors
/// `inval` for an unknown clock; an address that cannot be written.
pub fn clock_res_get(
    _: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    id: u32,
    resolution: u32,
) -> Result<(), Errno> {
    Ok(memory.write_u64(resolution, types::clock(id)?.resolution())?)
}

/// `clock_time_get`: a clock's time in nanoseconds, always as precise as the host's.
///
/// # Errors
/// `inval` for an unknown clock; an address that cannot be written.
pub fn clock_time_get(
    _: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    id: u32,
    _precision: u64,
    time: u32,
) -> Result<(), Errno> {
    Ok(memory.write_u64(time, types::clock(id)?.now())?)
}
