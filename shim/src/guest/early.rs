//! How a child tells what failed before it is the guest runner and able to encode a message.

use std::io;

/// A frame header with this bit set announces an [`EarlyFailure`] rather than an encoded message.
pub(super) const EARLY_FRAME: u32 = 0x8000_0000;

/// Bytes of an [`EarlyFailure`] after its header: the step and the error number.
pub(super) const EARLY_LEN: usize = 5;

/// What the child was doing before `execveat` when a system call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    /// Writing itself into a cgroup v1 hierarchy.
    EnterCgroup = 1,
    /// Joining a namespace given by path.
    JoinNamespace,
    /// Becoming root of its user namespace.
    BecomeRoot,
    /// Placing the standard streams and the channel.
    PlaceFds,
    /// Creating the final process from the intermediate one.
    Clone,
    /// Executing the shim's binary.
    Exec,
}

impl Step {
    fn describe(code: u8) -> &'static str {
        const NAMES: [(Step, &str); 6] = [
            (Step::EnterCgroup, "enter the container's cgroup"),
            (Step::JoinNamespace, "join a namespace given by path"),
            (Step::BecomeRoot, "become root of the container's user namespace"),
            (Step::PlaceFds, "place the standard streams"),
            (Step::Clone, "create the container's process in its namespaces"),
            (Step::Exec, "execute the shim's own binary as guest runner"),
        ];
        NAMES.iter().find(|(s, _)| *s as u8 == code).map_or("set itself up", |(_, text)| text)
    }
}

/// A failure of the child before it was able to encode a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct EarlyFailure([u8; EARLY_LEN]);

impl EarlyFailure {
    /// Wraps the bytes that followed an [`EARLY_FRAME`] header.
    pub(super) fn from_bytes(bytes: [u8; EARLY_LEN]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Display for EarlyFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [step, errno @ ..] = self.0;
        let error = io::Error::from_raw_os_error(i32::from_le_bytes(errno));
        write!(f, "the new process cannot {}: {error}", Step::describe(step))
    }
}
