//! The processor's registers and stack pointer.

/// Registers that a called function leaves as they are: what compiled code holds in them lies
/// nowhere else.
pub(in crate::runtime) const CALLEE_SAVED: usize = 6;

/// Calls `f` with a stack address below the caller's frame and the values of all registers that
/// the caller's callers may rely on.
#[inline(never)]
pub(in crate::runtime) fn with_registers<R>(
    f: impl FnOnce(usize, &[usize; CALLEE_SAVED]) -> R,
) -> R {
    let mut registers = [0usize; CALLEE_SAVED];
    let stack_pointer: usize;
    // SAFETY: writes the six words of `registers` and reads registers; changes nothing else.
    unsafe {
        std::arch::asm!(
            "mov [{to}], rbx",
            "mov [{to} + 8], rbp",
            "mov [{to} + 16], r12",
            "mov [{to} + 24], r13",
            "mov [{to} + 32], r14",
            "mov [{to} + 40], r15",
            "mov {sp}, rsp",
            to = in(reg) registers.as_mut_ptr(),
            sp = lateout(reg) stack_pointer,
            options(nostack, preserves_flags),
        );
    }
    f(stack_pointer, &registers)
}

/// Reads the words of this thread's stack in `range`, which both ends align to 4 bytes.
///
/// # Safety
/// The whole range must lie on the calling thread's stack, between the stack pointer and the frame
/// of a function that has not returned.
pub(in crate::runtime) unsafe fn stack_words(
    range: std::ops::Range<usize>,
    mut f: impl FnMut(u32),
) {
    let mut address = range.start.next_multiple_of(4);
    while address + 4 <= range.end {
        // SAFETY: the caller's promise. Volatile, because other functions own these words: the
        // compiler must not reason about their values.
        f(unsafe { std::ptr::with_exposed_provenance::<u32>(address).read_volatile() });
        address += 4;
    }
}
