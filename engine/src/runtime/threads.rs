//! The runtime calls of waiting and waking at addresses of linear memories.

use std::time::Duration;

use super::memory::LinearMemory;
use super::waiters::Woken;
use crate::abi::trap::TrapKind;

/// `memory.atomic.notify`: how many were woken. In an unshared memory nobody waits.
pub(super) fn notify(
    memory: &LinearMemory,
    index: u64,
    offset: u64,
    count: u32,
) -> Result<u32, TrapKind> {
    let address = aligned(index, offset, 4)?;
    if !memory.has(address, 4) {
        return Err(TrapKind::MemoryOutOfBounds);
    }
    Ok(memory.shared().map_or(0, |shared| shared.notify(address, count)))
}

/// `memory.atomic.wait32`.
pub(super) fn wait32(
    memory: &LinearMemory,
    index: u64,
    offset: u64,
    expected: u32,
    timeout: i64,
) -> Result<Woken, TrapKind> {
    let address = aligned(index, offset, 4)?;
    if !memory.has(address, 4) {
        return Err(TrapKind::MemoryOutOfBounds);
    }
    let shared = memory.shared().ok_or(TrapKind::ExpectedSharedMemory)?;
    shared.wait32(address, expected, duration(timeout)).ok_or(TrapKind::MemoryOutOfBounds)
}

/// `memory.atomic.wait64`.
pub(super) fn wait64(
    memory: &LinearMemory,
    index: u64,
    offset: u64,
    expected: u64,
    timeout: i64,
) -> Result<Woken, TrapKind> {
    let address = aligned(index, offset, 8)?;
    if !memory.has(address, 8) {
        return Err(TrapKind::MemoryOutOfBounds);
    }
    let shared = memory.shared().ok_or(TrapKind::ExpectedSharedMemory)?;
    shared.wait64(address, expected, duration(timeout)).ok_or(TrapKind::MemoryOutOfBounds)
}

/// The effective address, a multiple of `size`.
fn aligned(index: u64, offset: u64, size: u64) -> Result<u64, TrapKind> {
    if !index.wrapping_add(offset).is_multiple_of(size) {
        return Err(TrapKind::UnalignedAtomic);
    }
    index.checked_add(offset).ok_or(TrapKind::MemoryOutOfBounds)
}

/// A timeout in nanoseconds; negative is for ever.
fn duration(timeout: i64) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_for_alignment_then_for_overflow() {
        assert_eq!(aligned(4, 8, 4), Ok(12));
        assert_eq!(aligned(1, 3, 4), Ok(4));
        assert_eq!(aligned(4, 4, 8), Ok(8));
        assert_eq!(aligned(4, 2, 4), Err(TrapKind::UnalignedAtomic));
        assert_eq!(aligned(u64::MAX, 2, 4), Err(TrapKind::UnalignedAtomic));
        assert_eq!(aligned(u64::MAX - 3, 4, 4), Err(TrapKind::MemoryOutOfBounds));
    }

    #[test]
    fn negative_timeouts_never_end() {
        assert_eq!(duration(-1), None);
        assert_eq!(duration(i64::MIN), None);
        assert_eq!(duration(1500), Some(Duration::from_nanos(1500)));
    }
}
