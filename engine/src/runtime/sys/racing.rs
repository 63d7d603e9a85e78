//! Accesses to memory that other threads may write at the same moment.
//!
//! Such an access must not be one that the compiler knows: a race would be undefined behaviour.
//! Where there is a string instruction, it is written in assembly, whose effect is the processor's;
//! elsewhere every byte is an atomic access of its own.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes that are copied at a time when ranges overlap and the later bytes must be moved first.
const CHUNK: usize = 4096;

/// Copies `len` bytes.
///
/// # Safety
/// `len` bytes must be readable at `src` and writable at `dst`, and the ranges must not overlap.
#[cfg(target_arch = "x86_64")]
pub(in crate::runtime) unsafe fn copy_nonoverlapping(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear at every asm block.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") src => _,
            inout("rdi") dst => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Writes `value` to `len` bytes.
///
/// # Safety
/// `len` bytes must be writable at `dst`.
#[cfg(target_arch = "x86_64")]
pub(in crate::runtime) unsafe fn fill(dst: *mut u8, value: u8, len: usize) {
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "rep stosb",
            inout("rcx") len => _,
            inout("rdi") dst => _,
            in("al") value,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies `len` bytes.
///
/// # Safety
/// `len` bytes must be readable at `src` and writable at `dst`, and the ranges must not overlap.
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::runtime) unsafe fn copy_nonoverlapping(src: *const u8, dst: *mut u8, len: usize) {
    use std::sync::atomic::AtomicU8;
    for n in 0..len {
        // SAFETY: the caller's promise; a byte is always aligned.
        unsafe {
            let byte = AtomicU8::from_ptr(src.add(n).cast_mut()).load(Ordering::Relaxed);
            AtomicU8::from_ptr(dst.add(n)).store(byte, Ordering::Relaxed);
        }
    }
}

/// Writes `value` to `len` bytes.
///
/// # Safety
/// `len` bytes must be writable at `dst`.
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::runtime) unsafe fn fill(dst: *mut u8, value: u8, len: usize) {
    for n in 0..len {
        // SAFETY: the caller's promise; a byte is always aligned.
        unsafe {
            std::sync::atomic::AtomicU8::from_ptr(dst.add(n)).store(value, Ordering::Relaxed);
        }
    }
}

/// Copies `len` bytes as if all were read before any is written.
///
/// # Safety
/// `len` bytes must be readable at `src` and writable at `dst`.
pub(in crate::runtime) unsafe fn copy(src: *const u8, dst: *mut u8, len: usize) {
    let ahead = dst.addr().wrapping_sub(src.addr());
    // SAFETY: the caller's promise for the whole holds for every part. A part is read as a whole
    // into `buffer`, which overlaps nothing, before it is written.
    unsafe {
        if ahead >= len && src.addr().wrapping_sub(dst.addr()) >= len {
            return copy_nonoverlapping(src, dst, len);
        }
        let mut buffer = [0u8; CHUNK];
        let mut part = |start: usize, len: usize| {
            copy_nonoverlapping(src.add(start), buffer.as_mut_ptr(), len);
            copy_nonoverlapping(buffer.as_ptr(), dst.add(start), len);
        };
        if ahead < len {
            // The target is further up: its bytes are the source's later ones.
            let mut end = len;
            while end > 0 {
                let start = end.saturating_sub(CHUNK);
                part(start, end - start);
                end = start;
            }
        } else {
            let mut start = 0;
            while start < len {
                let end = len.min(start + CHUNK);
                part(start, end - start);
                start = end;
            }
        }
    }
}

/// Reads four bytes at once.
///
/// # Safety
/// `word` must be readable and aligned.
pub(in crate::runtime) unsafe fn load32(word: *mut u32) -> u32 {
    // SAFETY: the caller's promise; the host makes no other access of the kind that Rust knows.
    u32::from_le(unsafe { AtomicU32::from_ptr(word) }.load(Ordering::SeqCst))
}

/// Reads eight bytes at once.
///
/// # Safety
/// `word` must be readable and aligned.
pub(in crate::runtime) unsafe fn load64(word: *mut u64) -> u64 {
    // SAFETY: as in `load32`.
    u64::from_le(unsafe { AtomicU64::from_ptr(word) }.load(Ordering::SeqCst))
}
