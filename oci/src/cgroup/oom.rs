//! What the kernel killed for want of memory. Source: Linux `cgroup-v1/memory.rst` on
//! `memory.oom_control`, `cgroup-v2.rst` on `memory.events`.

use std::path::PathBuf;

use super::host::Version;
use super::stats::Flat;
use super::{Cgroup, CgroupError};

impl Cgroup {
    /// The file that counts such kills, and that tells when there may be a new one; `None` where
    /// nothing counts memory.
    #[must_use]
    pub fn oom_file(&self) -> Option<PathBuf> {
        let name = match self.version() {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        Some(self.folder("memory")?.join(name))
    }

    /// How many processes of the group the kernel has killed for want of memory, whichever group
    /// around it had too little. 0 where nothing counts memory.
    ///
    /// The kernel counts before it kills, so a process that was seen to end is counted.
    ///
    /// # Errors
    /// [`CgroupError::Read`] if the file is there and cannot be read.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let Some(file) = self.oom_file() else { return Ok(0) };
        Ok(Flat::read(&file)?.map_or(0, |counts| counts.get("oom_kill")))
    }
}
