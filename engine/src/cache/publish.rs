//! How entries come into the cache: whole, and never under a name before they are.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::entry::{PIECE, Seal, inspect};
use super::{Cache, CacheError, Key};
use crate::image::{HEADER_SIZE, Header, MAX_SIZE};

/// The beginning of names of entries that are under way.
pub(super) const TEMPORARY: &str = ".new-";
/// What an entry may be used for by its owner: reading.
const ENTRY_MODE: Mode = Mode::RUSR;

/// An entry that is written and that nobody can find yet.
#[derive(Debug)]
pub struct Unpublished {
    key: Key,
    file: File,
    /// Its name, where the file system has no unnamed files. Removed when it is dropped.
    temporary: Option<Temporary>,
}

#[derive(Debug)]
struct Temporary {
    dir: OwnedFd,
    name: String,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // If it cannot be removed now, pruning will do it.
        let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
    }
}

impl Cache {
    /// Writes a code image for a key. It can be used from then on, and found once it is published.
    ///
    /// # Errors
    /// When it is no code image of this build, or cannot be written: the disk is full or read-only.
    pub fn write(&self, key: &Key, image: &mut impl Read) -> Result<Unpublished, CacheError> {
        let failed = |source| self.error("write", key, source);
        let (fd, temporary) = self.unnamed().map_err(failed)?;
        let file = File::from(fd);
        copy(key, image, &file).map_err(failed)?;
        rustix::fs::fchmod(&file, ENTRY_MODE).map_err(|errno| failed(errno.into()))?;
        // What follows needs no right to write any more.
        let file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed)?;
        Ok(Unpublished { key: *key, file, temporary })
    }

    /// Makes an entry findable, durably, and keeps the cache within its bounds.
    ///
    /// If another process has published one for the same key in the meantime, that one stays.
    ///
    /// # Errors
    /// When the disk fails. Whoever uses the entry's file already can go on.
    pub fn publish(&self, entry: Unpublished) -> Result<(), CacheError> {
        let Unpublished { key, file, temporary } = entry;
        let failed = |source| self.error("publish", &key, source);
        file.sync_data().map_err(failed)?;
        if !self.name_it(&key, &file, temporary).map_err(failed)? {
            // One that is there is as good, unless it is damaged: then the next start compiles.
            return self.get(&key).map(drop);
        }
        rustix::fs::fsync(&self.dir).map_err(|errno| failed(errno.into()))?;
        if let (Some(run), Ok(identity)) = (&self.run, inspect(&file)) {
            run.set_verified(&key, &identity);
        }
        self.prune_but(Some(&key)).map(drop)
    }

    /// A file for a new entry, with a name only where there is no other way.
    fn unnamed(&self) -> io::Result<(OwnedFd, Option<Temporary>)> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.dir, ".", flags | OFlags::TMPFILE, mode) {
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            made => return Ok((made?, None)),
        }
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name = format!("{TEMPORARY}{:016x}", u64::from_le_bytes(random));
        let flags = flags | OFlags::CREATE | OFlags::EXCL;
        let file = rustix::fs::openat(&self.dir, &name, flags, mode)?;
        Ok((file, Some(Temporary { dir: self.dir.try_clone()?, name })))
    }

    /// Gives a file its name; `false` if that is taken.
    fn name_it(&self, key: &Key, file: &File, temporary: Option<Temporary>) -> io::Result<bool> {
        let named = match temporary {
            None => {
                let from = format!("/proc/self/fd/{}", file.as_raw_fd());
                let follow = AtFlags::SYMLINK_FOLLOW;
                rustix::fs::linkat(rustix::fs::CWD, from, &self.dir, key.name(), follow)
            }
            Some(temporary) => rustix::fs::renameat_with(
                &self.dir,
                &temporary.name,
                &self.dir,
                key.name(),
                RenameFlags::NOREPLACE,
            ),
        };
        match named {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Unpublished {
    /// The code image, open for reading and ready to be mapped.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Copies an image and seals it.
fn copy(key: &Key, image: &mut impl Read, file: &File) -> io::Result<()> {
    let mut header = vec![0; HEADER_SIZE];
    image.read_exact(&mut header)?;
    Seal::take(&mut header);
    let mut hash = Sha256::new();
    hash.update(&header);
    let mut piece = vec![0; PIECE];
    let mut at = HEADER_SIZE as u64;
    loop {
        let len = match image.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&piece[..len]);
        file.write_all_at(&piece[..len], at)?;
        at += len as u64;
        if at > MAX_SIZE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    Header::decode(&header, at).map_err(io::Error::other)?;
    Seal { key: *key, digest: hash.finalize().into() }.put(&mut header);
    file.write_all_at(&header, 0)
}
