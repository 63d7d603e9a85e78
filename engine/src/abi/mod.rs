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
//!   traps with [`trap::TrapKind::Host`] if that returns anything but 0, else loads the results.
//!
//! # Traps
//!
//! Compiled code raises every trap by a faulting instruction whose offset stands in the image's
//! trap table; runtime calls that fail leave their reason in the store, return a status other than
//! 0, and the code after them traps with `Host`. No Rust frame is ever skipped.

pub mod builtins;
pub mod gc;
pub mod layout;
pub mod trap;
