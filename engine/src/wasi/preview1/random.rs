//! Randomness.

use super::errno::Errno;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;

/// Most bytes filled at a time: a shared memory is filled by way of a copy.
const PIECE: u32 = 1 << 20;

/// `random_get`: fills a buffer from the kernel's generator, without a copy in between if the memory
/// is not shared.
///
/// # Errors
/// A buffer that is not inside the memory.
pub fn random_get(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    buf: u32,
    buf_len: u32,
) -> Result<(), Errno> {
    memory.check_array(buf, buf_len, 1, 1)?;
    let mut done = 0;
    while done < buf_len {
        let len = PIECE.min(buf_len - done);
        memory.write_with(buf + done, len, |bytes| {
            ctx.random.borrow_mut().fill(bytes)?;
            Ok::<_, Errno>(bytes.len())
        })?;
        done += len;
    }
    Ok(())
}
