//! x86-64: how a throw leaves the frames between it and its landing pad.

use std::arch::naked_asm;
use std::mem::offset_of;

use crate::runtime::throw::{self, Resume};
use crate::runtime::vmcontext::{Header, StoreRecord};

macro_rules! leaves_frames {
    ($(#[$doc:meta])* $name:ident($($param:ident: $ty:ty),*) -> $result:ty, $find:path) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Only compiled code may call it, from a frame with a frame pointer.
        #[unsafe(naked)]
        pub(in crate::runtime) unsafe extern "C" fn $name($($param: $ty),*) -> $result {
            // Compiled code keeps frame pointers, so `rbp` is the caller's, and the return address
            // lies on top of the stack. One word more aligns the stack for the call. `find` gives
            // a place that outlives the frames below the new stack pointer. The payload goes into
            // the two registers in which landing pads expect it.
            naked_asm!(
                "mov rdx, rbp",
                "mov rcx, [rsp]",
                "push rbp",
                "call {find}",
                "mov rsp, [rax + {sp}]",
                "mov rbp, [rax + {fp}]",
                "mov rcx, [rax + {pc}]",
                "mov rax, [rax + {payload}]",
                "xor edx, edx",
                "jmp rcx",
                find = sym $find,
                sp = const offset_of!(Resume, sp),
                fp = const offset_of!(Resume, fp),
                pc = const offset_of!(Resume, pc),
                payload = const offset_of!(Resume, payload),
            )
        }
    };
}

leaves_frames! {
    /// The runtime call [`throw`](crate::abi::builtins::Builtin::throw).
    throw(ctx: *mut Header, exception: u32) -> u32, throw::on_throw
}

leaves_frames! {
    /// What an exit trampoline calls when the host raised an exception:
    /// [`RAISE`](crate::abi::layout::store_record::RAISE).
    raise(store: *mut StoreRecord) -> (), throw::on_raise
}
