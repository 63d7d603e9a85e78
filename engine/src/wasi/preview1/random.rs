//! Randomness.

use super::errno::Errno;
use crate::wasi::core::random;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;

/// `random_get`: fills a buffer from the kernel's generator, without a copy in between.
///
/// # Errors
/// A buffer that is not inside the memory.
pub fn random_get(
    _: &mut WasiCtx,
    memory: &mut GuestMemory<'_>,
    buf: u32,
    buf_len: u32,
) -> Result<(), Errno> {
    Ok(random::fill(memory.bytes_mut(buf, buf_len)?)?)
}
