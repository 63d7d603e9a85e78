//! The treaty between compiled code and the runtime: field offsets, runtime calls, trap codes.
//!
//! Everything here is constant, safe and free of other rooms' types. [`compile`](crate::compile)
//! emits code by these numbers and [`runtime`](crate::runtime) lays out memory by them; neither
//! imports the other.
//!
//! # Calling convention of wasm functions
//!
//! Cranelift's `Tail` convention with the parameters `(ctx, wasm parameters…)`. `ctx` is the
//! callee's [`VMContext`](layout) for functions of a module and a host record (see
//! [`layout::host_record`]) for host functions. i32, i64, f32, f64, v128 pass as themselves, a
//! function reference as a pointer to a function reference record (0 is null), every other
//! reference as an i32 handle (0 is null).
//!
//! # Trampolines, one pair for each distinct signature of a module
//!
//! * *entry* (host to wasm), System V:
//!   `fn(ctx, code, values: *mut [u8; 16], store) -> u32`. Reads the parameters from `values`
//!   (16 bytes each, little endian), records its stack pointer, frame pointer and landing pad in
//!   the store record, calls `code` by `try_call`, writes the results over `values` and returns 0.
//!   A trap resumes at the landing pad, which returns 1.
//! * *exit* (wasm to host), `Tail` convention with a host record as `ctx`: spills the parameters
//!   to 16-byte slots on its stack (as many slots as the larger of parameters and results), stores
//!   its frame pointer into `store.last_exit_fp`, calls `record.call(record, slots)` in System V,
//!   and does what the [status](layout::host_status) says: loads the results, traps with
//!   [`trap::TrapKind::Host`], or raises the pending exception by a call of `store.raise`.
//!
//! # Traps
//!
//! Compiled code raises every trap by a faulting instruction whose offset stands in the image's
//! trap table; runtime calls that fail leave their reason in the store, return a status other than
//! 0, and the code after them traps with `Host`. No Rust frame is ever skipped.
//!
//! # Exceptions
//!
//! A call inside a `try_table` is a `try_call`. The image lists its return address with the clauses
//! of all `try_table`s around it, innermost first: a tag of the module (or any), where the frame
//! keeps its context, and the landing pad. The runtime call `throw` walks the frames by their frame
//! pointers up to the innermost entry trampoline, compares the exception's tag record with the one
//! in the frame's context, and goes on at the landing pad of the first clause that matches, with
//! the frame's own stack and frame pointer and the exception as the pad's first payload. Where none
//! matches, it goes on at the entry trampoline's landing pad, with the exception pending in the
//! store. In between lie only frames of compiled code.

pub mod builtins;
pub mod cpu;
pub mod gc;
pub mod layout;
pub mod lazy;
pub mod trap;
