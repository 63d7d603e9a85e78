//! The one door into compiled code.

use std::ptr::NonNull;

use super::func::CallError;
use super::store::StoreInner;
use super::trap;
use super::vmcontext::{Activation, Slot, StoreRecord};

/// An entry trampoline: see [`abi`](crate::abi).
type Entry = unsafe extern "C" fn(
    ctx: *mut u8,
    code: *const u8,
    values: *mut Slot,
    store: *mut StoreRecord,
) -> u32;

/// Calls compiled code through an entry trampoline. Calls nest: a host function may call again.
///
/// # Safety
/// `store` must be live, `entry` the entry trampoline of the signature of `code`, both in modules of
/// the store; `ctx` the context that `code` expects; `values` as many slots as the larger of its
/// parameters and results, holding the parameters. No Rust reference to the store may be alive.
pub(super) unsafe fn enter(
    store: NonNull<StoreInner>,
    entry: *const u8,
    ctx: *mut u8,
    code: *const u8,
    values: *mut Slot,
) -> Result<(), CallError> {
    let store = store.as_ptr();
    // SAFETY: by the caller's promise. The trampoline writes the innermost activation into the
    // store's record; the one that it replaces is kept here, where backtraces find it, and put back.
    // References to the store made here end before the trampoline is called and begin after it.
    unsafe {
        let outer: Activation = (*store).record.activation;
        if outer.entry_fp == 0 {
            (*store).set_stack_limit((&raw const outer).addr());
        }
        (*store).record.activation.outer = &raw const outer;
        let previous = trap::set_current(store);
        let entry = std::mem::transmute::<*const u8, Entry>(entry);
        let status = entry(ctx, code, values, store.cast());
        trap::set_current(previous);
        (*store).record.activation = outer;
        if status == 0 { Ok(()) } else { Err(trap::take(&mut *store)) }
    }
}
