//! Entries: what a file must be to be one, and the seal that binds it to its key.
//!
//! The seal is the end of the image's header page: the key, then the SHA-256 of the whole image with
//! zeros in place of the seal. So every bit of an entry counts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Stat};
use sha2::{Digest, Sha256};

use super::memory::FileIdentity;
use super::{Cache, CacheError, Key, names};
use crate::image::{HEADER_SIZE, Header, ImageError, MAX_SIZE, SEAL};

/// Bytes that are read and hashed at a time.
pub(super) const PIECE: usize = 256 << 10;

/// What is wrong with an entry.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is no file that this cache has made.
    #[error("it {0}")]
    Foreign(&'static str),
    /// It belongs to another key.
    #[error("it is the entry of {0}")]
    OtherKey(Key),
    /// Some of its bytes have changed.
    #[error("its digest is not that of its bytes")]
    Digest,
    /// Its digest is right, yet it is no image that this build can use.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// An entry as `ls` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// When it was published.
    pub made: SystemTime,
    /// When it was last used, to a minute, as far as that is known.
    pub used: SystemTime,
}

impl Cache {
    /// All entries, the one that was not used for the longest time first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        let failed = |source| CacheError { act: "list", path: self.path.clone(), source };
        let names = names(&self.dir).map_err(failed)?;
        let keys = names.iter().filter_map(|name| name.parse().ok());
        let mut entries: Vec<Entry> = keys.filter_map(|key| self.look_at(key)).collect();
        entries.sort_by_key(|entry| (entry.used, entry.key));
        Ok(entries)
    }

    /// `None` if it has gone in the meantime.
    fn look_at(&self, key: Key) -> Option<Entry> {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(&self.dir, key.name(), flags).ok()?;
        let made = time(stat.st_mtime, stat.st_mtime_nsec);
        let seen = self.run.as_ref().and_then(|run| run.last_use(&key));
        // Without another sign the kernel's own, which it may not keep.
        let read = time(stat.st_atime, stat.st_atime_nsec);
        Some(Entry {
            key,
            size: stat.st_size.unsigned_abs(),
            made,
            used: seen.unwrap_or(read).max(made),
        })
    }
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let since = Duration::new(u64::try_from(seconds).unwrap_or(0), 0);
    SystemTime::UNIX_EPOCH + since + Duration::from_nanos(nanoseconds)
}

/// Whether a file is what entries are, from its attributes; gives its identity.
pub(super) fn inspect(file: &File) -> Result<FileIdentity, Fault> {
    let stat = rustix::fs::fstat(file).map_err(io::Error::from)?;
    match foreign(&stat) {
        Some(how) => Err(Fault::Foreign(how)),
        None => Ok(FileIdentity::of(&stat)),
    }
}

fn foreign(stat: &Stat) -> Option<&'static str> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Some("is no regular file");
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Some("is somebody else's");
    }
    if stat.st_nlink != 1 {
        return Some("has another name");
    }
    if stat.st_mode & 0o7777 != 0o400 {
        return Some("has another mode than 0400");
    }
    let size = stat.st_size.unsigned_abs();
    if !(HEADER_SIZE as u64..=MAX_SIZE).contains(&size) {
        return Some("has a size that no code image has");
    }
    None
}

/// Computes an entry's digest, and checks all that is written in its header.
pub(super) fn verify(key: &Key, file: &File) -> Result<(), Fault> {
    inspect(file)?;
    let size = file.metadata()?.len();
    let mut header = vec![0; HEADER_SIZE];
    file.read_exact_at(&mut header, 0)?;
    let seal = Seal::take(&mut header);
    if seal.key != *key {
        return Err(Fault::OtherKey(seal.key));
    }
    let mut hash = Sha256::new();
    hash.update(&header);
    let mut piece = vec![0; PIECE];
    let mut at = HEADER_SIZE as u64;
    while at < size {
        let len = PIECE.min(usize::try_from(size - at).unwrap_or(PIECE));
        file.read_exact_at(&mut piece[..len], at)?;
        hash.update(&piece[..len]);
        at += len as u64;
    }
    if seal.digest != <[u8; 32]>::from(hash.finalize()) {
        return Err(Fault::Digest);
    }
    Header::decode(&header, size)?;
    Ok(())
}

/// What binds an entry to its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    pub(super) key: Key,
    pub(super) digest: [u8; 32],
}

impl Seal {
    /// Takes the seal out of a header page, which has zeros there afterwards.
    pub(super) fn take(header: &mut [u8]) -> Seal {
        let mut words = [[0; 32]; 2];
        for (word, place) in words.iter_mut().zip(header[SEAL].chunks_exact_mut(32)) {
            word.copy_from_slice(place);
            place.fill(0);
        }
        Seal { key: Key::from_bytes(words[0]), digest: words[1] }
    }

    /// Puts the seal into a header page.
    pub(super) fn put(&self, header: &mut [u8]) {
        let place = &mut header[SEAL];
        place[..32].copy_from_slice(self.key.as_bytes());
        place[32..].copy_from_slice(&self.digest);
    }
}
