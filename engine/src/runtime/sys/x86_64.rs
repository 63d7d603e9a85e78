//! x86-64: how a throw leaves the frames between it and its landing pad, and how a call waits for
//! its callee's code.

use std::arch::naked_asm;
use std::mem::offset_of;

use crate::runtime::lazy;
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

/// Where stubs of functions without code go on: [`CTX_LAZY`](crate::abi::layout::CTX_LAZY). Gets the
/// function's number in `eax`, its context in `r11`, and what the function would get.
///
/// # Safety
/// Only stubs may jump here.
#[unsafe(naked)]
pub(in crate::runtime) unsafe extern "C" fn ask() {
    // All registers in which the `Tail` convention passes parameters are kept: six integers, eight
    // vectors. The return address makes 8 bytes and `rbp` 8, so the stack is aligned for the call.
    // The frame lets a walk go on behind it.
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "sub rsp, 176",
        "mov [rsp], rdi",
        "mov [rsp + 8], rsi",
        "mov [rsp + 16], rdx",
        "mov [rsp + 24], rcx",
        "mov [rsp + 32], r8",
        "mov [rsp + 40], r9",
        "movups [rsp + 48], xmm0",
        "movups [rsp + 64], xmm1",
        "movups [rsp + 80], xmm2",
        "movups [rsp + 96], xmm3",
        "movups [rsp + 112], xmm4",
        "movups [rsp + 128], xmm5",
        "movups [rsp + 144], xmm6",
        "movups [rsp + 160], xmm7",
        "mov rdi, r11",
        "mov esi, eax",
        "call {on_ask}",
        "mov rdi, [rsp]",
        "mov rsi, [rsp + 8]",
        "mov rdx, [rsp + 16]",
        "mov rcx, [rsp + 24]",
        "mov r8, [rsp + 32]",
        "mov r9, [rsp + 40]",
        "movups xmm0, [rsp + 48]",
        "movups xmm1, [rsp + 64]",
        "movups xmm2, [rsp + 80]",
        "movups xmm3, [rsp + 96]",
        "movups xmm4, [rsp + 112]",
        "movups xmm5, [rsp + 128]",
        "movups xmm6, [rsp + 144]",
        "movups xmm7, [rsp + 160]",
        "leave",
        "jmp rax",
        on_ask = sym lazy::on_ask,
    )
}
