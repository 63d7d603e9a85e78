//! Removing what a guest leaves behind: processes, cgroup, mounts, state file.

use std::path::Path;

use super::GuestError;

/// What [`cleanup_bundle`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remains {
    /// The pid of the guest, if the state file named one.
    pub pid: Option<u32>,
    /// Whether that guest was still running and was killed now.
    pub killed: bool,
}
