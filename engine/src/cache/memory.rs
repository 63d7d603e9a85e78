//! What is known until the machine restarts: which entries were verified, and digests of modules.
//!
//! It is kept by the identity of files. Nothing here is needed: what cannot be read or written is
//! computed again, and said at level debug.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use super::{CacheError, Key, own_folder};

/// A use is noted again after this time.
const USE_GRAIN: Duration = Duration::from_secs(60);

/// Times of change are coarser than changes: by 10 ms at most, and here by a second.
const SETTLING: Duration = Duration::from_secs(2);

/// What tells whether a file is still the same: device, inode, size, time of the last change of
/// content or attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity([u64; 5]);

impl FileIdentity {
    /// Of a file's attributes. Only where the kernel keeps the time of change itself, and nobody
    /// but it can set that time, does equality mean the same bytes: on local file systems.
    #[must_use]
    pub fn of(stat: &Stat) -> FileIdentity {
        let changed = [stat.st_ctime.cast_unsigned(), stat.st_ctime_nsec];
        FileIdentity([
            stat.st_dev,
            stat.st_ino,
            stat.st_size.cast_unsigned(),
            changed[0],
            changed[1],
        ])
    }

    /// Whether the file has changed long enough ago for the clock of the file system to have moved on.
    pub(super) fn is_settled(&self) -> bool {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(self.0[3]);
        SystemTime::now().duration_since(changed).is_ok_and(|age| age >= SETTLING)
    }

    fn bytes(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        for (place, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn name(&self) -> String {
        format!("digests/{:x}-{:x}", self.0[0], self.0[1])
    }
}

/// The folder that a restart of the machine empties.
#[derive(Debug)]
pub(super) struct Memory {
    dir: OwnedFd,
}

fn verified(key: &Key) -> String {
    format!("verified/{key}")
}

impl Memory {
    pub(super) fn open(path: &Path) -> Result<Memory, CacheError> {
        Ok(Memory { dir: own_folder(path)? })
    }

    /// Opens a file of a folder in it; the folder is made with its first file.
    pub(super) fn create(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR);
        match (open(), name.split_once('/')) {
            (Err(Errno::NOENT), Some((folder, _))) => {
                match rustix::fs::mkdirat(&self.dir, folder, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => Ok(open()?),
                    Err(errno) => Err(errno.into()),
                }
            }
            (opened, _) => Ok(opened?),
        }
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Whether this very file was verified as the entry of that key; notes the use.
    pub(super) fn is_verified(&self, key: &Key, identity: &FileIdentity) -> bool {
        let Some((file, kept)) = read::<40>(&self.dir, &verified(key)) else { return false };
        let same = kept == identity.bytes();
        if same {
            note_use(&file);
        }
        same
    }

    pub(super) fn set_verified(&self, key: &Key, identity: &FileIdentity) {
        self.write(&verified(key), &identity.bytes());
    }

    pub(super) fn forget(&self, key: &Key) {
        // It is not there, or it is no longer true of any file.
        let _ = rustix::fs::unlinkat(&self.dir, verified(key), AtFlags::empty());
    }

    /// When an entry was last used since the machine started.
    pub(super) fn last_use(&self, key: &Key) -> Option<SystemTime> {
        let stat = rustix::fs::statat(&self.dir, verified(key), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let since = Duration::from_secs(u64::try_from(stat.st_mtime).ok()?);
        Some(SystemTime::UNIX_EPOCH + since)
    }

    pub(super) fn digest(&self, identity: &FileIdentity) -> Option<[u8; 32]> {
        let (_, kept) = read::<72>(&self.dir, &identity.name())?;
        let (of, digest) = kept.split_at(40);
        if of != identity.bytes() {
            return None;
        }
        digest.try_into().ok()
    }

    pub(super) fn set_digest(&self, identity: &FileIdentity, digest: &[u8; 32]) {
        let mut bytes = [0; 72];
        bytes[..40].copy_from_slice(&identity.bytes());
        bytes[40..].copy_from_slice(digest);
        self.write(&identity.name(), &bytes);
    }
}

impl Memory {
    /// Writes a small file in one call, or not at all; a torn one says nothing that is true of a file.
    fn write(&self, name: &str, bytes: &[u8]) {
        let file = self.create(name, OFlags::WRONLY | OFlags::TRUNC);
        if let Err(error) = file.and_then(|fd| File::from(fd).write_all(bytes)) {
            tracing::debug!(%error, name, "not kept until the next restart");
        }
    }
}

fn read<const N: usize>(dir: &OwnedFd, name: &str) -> Option<(File, [u8; N])> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?);
    // One byte more than there should be.
    let mut bytes = Vec::with_capacity(N + 1);
    (&mut file).take(N as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some((file, bytes.try_into().ok()?))
}

fn note_use(file: &File) {
    let recent = file
        .metadata()
        .and_then(|meta| meta.modified())
        .is_ok_and(|used| SystemTime::now().duration_since(used).unwrap_or_default() < USE_GRAIN);
    if !recent {
        let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times =
            Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) };
        // Then it counts as unused for longer, no more.
        let _ = rustix::fs::futimens(file, &times);
    }
}
