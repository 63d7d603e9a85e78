//! Every exit number the shim reports, and the time it happened.

use std::time::SystemTime;

/// Reported for a task whose start failed: the shell's number for "found but cannot be run".
pub const CANNOT_RUN: u32 = 126;
/// Reported by `delete` for a guest that went down with its shim: killed.
pub const LOST: u32 = SIGNAL_BASE + libc::SIGKILL as u32;
/// Added to the number of the signal that ended a guest.
const SIGNAL_BASE: u32 = 128;

/// How a process ended, as the kernel told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStatus {
    /// It left by itself with this number, 0 to 255. A trap arrives here as 134.
    Exited(u8),
    /// This signal ended it.
    Signaled(i32),
}

/// The number containerd is told: an exit is itself, a signal is 128 + its number.
impl From<WaitStatus> for u32 {
    fn from(status: WaitStatus) -> Self {
        match status {
            WaitStatus::Exited(code) => u32::from(code),
            WaitStatus::Signaled(signal) => by_signal(signal),
        }
    }
}

/// The exit number of a task ended by `signal`.
pub fn by_signal(signal: i32) -> u32 {
    SIGNAL_BASE + signal.unsigned_abs()
}

/// The end of a task; made once and never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The number for `docker wait` and friends.
    pub code: u32,
    /// When the shim learnt of it.
    pub at: SystemTime,
}

impl Exit {
    /// An exit that happens now.
    pub fn now(code: u32) -> Self {
        Self { code, at: SystemTime::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(u32::from(WaitStatus::Exited(0)), 0);
        assert_eq!(u32::from(WaitStatus::Exited(42)), 42);
        assert_eq!(u32::from(WaitStatus::Exited(134)), 134);
        assert_eq!(u32::from(WaitStatus::Exited(255)), 255);
        assert_eq!(u32::from(WaitStatus::Signaled(libc::SIGKILL)), 137);
        assert_eq!(u32::from(WaitStatus::Signaled(libc::SIGTERM)), 143);
        assert_eq!(by_signal(64), 192);
        assert_eq!(LOST, 137);
    }
}
