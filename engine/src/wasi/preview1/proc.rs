//! The end of the process, signals to itself, and giving way to others.

use super::errno::Errno;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;

/// The guest ends. Travels as a host error, so that the guest's frames unwind as for a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the program exits with {0}")]
pub struct ProcExit(pub u32);

/// `proc_exit`: always ends the guest.
#[must_use]
pub fn proc_exit(code: u32) -> ProcExit {
    ProcExit(code)
}

/// `proc_raise`: does what the signal does by default, since no guest can install a handler. Those
/// that end a process end the guest with 128 plus Linux's number; ignored ones do nothing; stopping
/// is left to the host.
///
/// # Errors
/// The end of the guest, or an errno: `inval` for an unknown signal, `notsup` for stop signals.
pub fn proc_raise(signal: u32) -> Result<Result<(), Errno>, ProcExit> {
    match signal {
        // None, CHLD, CONT, URG, WINCH.
        0 | 16 | 17 | 22 | 27 => Ok(Ok(())),
        // STOP, TSTP, TTIN, TTOU.
        18..=21 => Ok(Err(Errno::Notsup)),
        1..=15 => Err(ProcExit(128 + signal)),
        // Linux counts STKFLT as 16.
        23..=26 | 28..=30 => Err(ProcExit(128 + signal + 1)),
        _ => Ok(Err(Errno::Inval)),
    }
}

/// `sched_yield`.
///
/// # Errors
/// None.
pub fn sched_yield(_: &WasiCtx, _: &mut GuestMemory<'_>) -> Result<(), Errno> {
    rustix::thread::sched_yield();
    Ok(())
}
