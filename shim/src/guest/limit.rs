//! The container's memory limit as its program meets it: growing fails before the kernel kills.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::program::Ceiling;

/// Of the limit, what the kernel needs for memory that is handed out (page tables have 1/512), as a
/// binary logarithm.
const KERNEL_LOG2: u32 = 8;

/// What the program's memories are held against.
pub(super) static CEILING: Ceiling = Ceiling::new(left);

/// Asked at each growth, since the limit may change while the program runs.
static LIMIT: OnceLock<File> = OnceLock::new();

/// What the container needs besides the program's memories, in bytes.
static OVERHEAD: AtomicU64 = AtomicU64::new(0);

/// The limit and the usage of the container, opened while the host's hierarchies are in sight.
#[derive(Debug)]
pub(super) struct Files {
    limit: File,
    usage: File,
}

impl Files {
    /// As the shim sends them: the limit, then the usage; `None` if it sent none.
    pub(super) fn received(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        Some(Self { limit: fds.next()?.into(), usage: fds.next()?.into() })
    }
}

/// Opens the files of the container's memory; `None` where nothing counts it.
pub(super) fn open(files: &[PathBuf; 2]) -> io::Result<Option<Files>> {
    let [limit, usage] = files;
    match (File::open(limit), File::open(usage)) {
        (Ok(limit), Ok(usage)) => Ok(Some(Files { limit, usage })),
        // A group of cgroup v2 to which the controller was not handed down.
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// Holds the program's memories against the limit from now on. What the container uses now is what it
/// needs besides them.
pub(super) fn hold(files: Files) {
    OVERHEAD.store(read(&files.usage).unwrap_or(0), Ordering::Relaxed);
    // There is one program in a process.
    let _ = LIMIT.set(files.limit);
}

/// Bytes that the program's memories may have together.
fn left() -> u64 {
    let limit = LIMIT.get().and_then(read).unwrap_or(u64::MAX);
    (limit - (limit >> KERNEL_LOG2)).saturating_sub(OVERHEAD.load(Ordering::Relaxed))
}

/// The number in a file of a cgroup; `None` for `max`, and when the group is gone.
fn read(file: &File) -> Option<u64> {
    let mut bytes = [0; 32];
    let count = file.read_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..count]).ok()?.trim().parse().ok()
}
