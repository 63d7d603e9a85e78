//! Writing kernel settings through a `/proc` that no image can have touched.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use super::path;
use super::runner::{Act, Failure};

/// `f_type` of procfs; see statfs(2).
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// The host's procfs, opened before the root changes. Settings that belong to a namespace follow the
/// namespaces of whoever opens them, so this is the container's view where it matters.
#[derive(Debug)]
pub(super) struct Proc(OwnedFd);

impl Proc {
    /// Opens `/proc` and makes sure that it is procfs.
    pub(super) fn open() -> Result<Self, Failure> {
        open_proc().map(Self).act("open", "/proc")
    }

    /// Writes each setting; the paths are relative to `/proc/sys`.
    pub(super) fn write_sysctls(&self, sysctls: &[(PathBuf, String)]) -> Result<(), Failure> {
        for (name, value) in sysctls {
            self.write_sysctl(name, value)
                .act("set the sysctl", format_args!("{}={value}", name.display()))?;
        }
        Ok(())
    }

    fn write_sysctl(&self, name: &Path, value: &str) -> io::Result<()> {
        let file = path::open_strict(self.0.as_fd(), &Path::new("sys").join(name), OFlags::WRONLY)?;
        let written = rustix::io::write(&file, value.as_bytes())?;
        if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// Opens `/proc` and makes sure that it is procfs.
pub(super) fn open_proc() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty())?;
    if rustix::fs::fstatfs(&proc)?.f_type as i64 != PROC_SUPER_MAGIC {
        return Err(io::Error::other("it is not a procfs"));
    }
    Ok(proc)
}
