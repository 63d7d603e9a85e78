//! One compilation for each key at a time, across all processes of the node.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::{Cache, CacheError, Key};

/// The right to compile for a key. Whoever ends without giving it back has given it back.
#[derive(Debug)]
pub struct Lock {
    /// Locked as long as it is open.
    _file: File,
    dir: OwnedFd,
    key: Key,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: whoever comes next makes a new file, and whoever waits for this one looks again.
        let _ = rustix::fs::unlinkat(&self.dir, name(&self.key), AtFlags::empty());
    }
}

impl Cache {
    /// Takes the right to compile for a key; `None` while another process has it.
    ///
    /// After getting it, look for the entry once more.
    ///
    /// # Errors
    /// When there is no folder for locks, or it cannot be written to. Compile without it then:
    /// nothing but time is lost.
    pub fn try_lock(&self, key: &Key) -> Result<Option<Lock>, CacheError> {
        let failed = |source| self.error("lock", key, source);
        let Some(run) = &self.run else {
            return Err(failed(io::ErrorKind::Unsupported.into()));
        };
        loop {
            let file = run.create(&name(key), OFlags::RDWR).map_err(failed)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(failed(errno.into())),
            }
            if is_named(run.dir(), key, &file) {
                let dir = run.dir().try_clone().map_err(failed)?;
                return Ok(Some(Lock { _file: file.into(), dir, key: *key }));
            }
        }
    }
}

fn name(key: &Key) -> String {
    format!("locks/{key}")
}

/// Whether the file is still the one under that name: its last holder removes it.
fn is_named(dir: &OwnedFd, key: &Key, file: &OwnedFd) -> bool {
    let named = rustix::fs::statat(dir, name(key), AtFlags::SYMLINK_NOFOLLOW);
    match (named, rustix::fs::fstat(file)) {
        (Ok(named), Ok(own)) => (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino),
        _ => false,
    }
}
