//! Every exit number the shim reports, and the time it happened.

use std::time::SystemTime;

use crate::guest;

/// Reported for a task whose start failed: the shell's number for "found but cannot be run".
pub const CANNOT_RUN: u32 = 126;
/// Reported for a further process whose program is not there: the shell's number for "not found".
pub const NOT_FOUND: u32 = 127;
/// Reported for a guest whose end nobody saw.
pub const UNKNOWN: u32 = 255;
/// Added to the number of the signal that ended a guest.
const SIGNAL_BASE: u32 = 128;

/// The end of a task; made once and never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// The number for `docker wait` and friends.
    pub code: u32,
    /// When the shim learnt of it.
    pub at: SystemTime,
}

impl ExitStatus {
    /// An end that happens now.
    #[must_use]
    pub fn now(code: u32) -> Self {
        Self { code, at: SystemTime::now() }
    }
}

/// An exit is itself (a trap arrives as 134 from the runner), a signal is 128 + its number.
impl From<guest::WaitStatus> for ExitStatus {
    fn from(status: guest::WaitStatus) -> Self {
        let code = match status.exit {
            guest::Exit::Code(code) => u32::from(code),
            guest::Exit::Signal(signal) => by_signal(signal),
            guest::Exit::Lost => UNKNOWN,
        };
        Self { code, at: status.at }
    }
}

/// The exit number of a task ended by `signal`.
#[must_use]
pub fn by_signal(signal: i32) -> u32 {
    SIGNAL_BASE + signal.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest::Exit;

    #[test]
    fn numbers() {
        let code = |exit| {
            let at = SystemTime::UNIX_EPOCH;
            ExitStatus::from(guest::WaitStatus { exit, trap: None, at }).code
        };
        for number in [0, 42, 134, 255] {
            assert_eq!(code(Exit::Code(number)), u32::from(number));
        }
        assert_eq!(code(Exit::Signal(libc::SIGKILL)), 137);
        assert_eq!(code(Exit::Signal(libc::SIGTERM)), 143);
        assert_eq!(code(Exit::Signal(64)), 192);
        assert_eq!(code(Exit::Lost), UNKNOWN);
    }
}
