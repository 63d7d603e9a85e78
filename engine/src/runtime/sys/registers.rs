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

#[cfg(test)]
mod tests {
    use super::*;

    /// Says which of the numbers `marks` and the three above lie in a register that is preserved,
    /// or on the stack up to `stack_end`.
    #[inline(never)]
    extern "C" fn search(stack_end: usize, marks: u64, found: &mut [bool; 4]) {
        with_registers(|stack_pointer, registers| {
            let mut see = |word: u32| {
                let n = u64::from(word).wrapping_sub(marks);
                if let Some(found) = found.get_mut(n as usize) {
                    *found = true;
                }
            };
            registers.iter().for_each(|&register| see(register as u32));
            // SAFETY: `stack_end` lies in the caller's frame.
            unsafe { stack_words(stack_pointer..stack_end, see) };
        });
    }

    #[test]
    fn what_only_registers_hold_is_found() {
        // A number that nothing else has, at run time.
        let local = 0u8;
        let marks = u64::from(0x5a5a_0000 | (std::process::id() & 0xff) << 8);
        let mut found = [false; 4];
        let stack_end = std::hint::black_box(&raw const local).addr();
        // SAFETY: calls a function of the C convention with its three arguments; the registers that
        // are set are declared as changed.
        unsafe {
            std::arch::asm!(
                "mov r12, rsi",
                "lea r13, [rsi + 1]",
                "lea r14, [rsi + 2]",
                "lea r15, [rsi + 3]",
                "call {search}",
                search = sym search,
                inout("rdi") stack_end => _,
                inout("rsi") marks => _,
                inout("rdx") &raw mut found => _,
                out("r12") _,
                out("r13") _,
                out("r14") _,
                out("r15") _,
                clobber_abi("C"),
            );
        }
        assert_eq!(found, [true; 4]);
    }
}
