//! Signals for a guest that handles them itself.
//!
//! Signals are the process's, and so is what is here: one guest runs in a process. A signal handler
//! of the host notes the signal; host functions that wait stop waiting with
//! [`Error::Interrupted`]; and where a host function returns to the guest, the guest's handler is called
//! first. A guest that only computes handles nothing until it calls the host.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::error::{Error, Result};

/// Whether the guest has a handler.
static HANDLED: AtomicBool = AtomicBool::new(false);
/// A bit for each signal that was noted and not handled yet.
static PENDING: AtomicU64 = AtomicU64::new(0);

/// From now on the guest handles signals.
pub(in crate::wasi) fn handle() {
    HANDLED.store(true, Ordering::SeqCst);
}

/// Notes signal number `signal` (1 to 63) for the guest's handler; `false` if it has none. Safe in a
/// signal handler: atomic operations.
///
/// A host function may be just about to wait when this is called. So that it notices, interrupt
/// the process again and again, as by a timer, as long as [`is_pending`].
#[must_use]
pub fn note(signal: i32) -> bool {
    let known = (1..64).contains(&signal) && HANDLED.load(Ordering::SeqCst);
    if known {
        PENDING.fetch_or(1 << signal, Ordering::SeqCst);
    }
    known
}

/// Whether a signal waits to be handled.
#[must_use]
pub fn is_pending() -> bool {
    PENDING.load(Ordering::Relaxed) != 0
}

/// After a wait was interrupted: go on unless the guest has a signal to handle.
pub(super) fn check() -> Result<()> {
    if is_pending() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Takes the lowest of the signals that wait.
pub(in crate::wasi) fn take() -> Option<i32> {
    let without_lowest = |pending: u64| pending & (pending - 1);
    let before = PENDING
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |pending| {
            (pending != 0).then(|| without_lowest(pending))
        })
        .ok()?;
    Some(before.trailing_zeros().cast_signed())
}
