//! The node cache: code images on disk, found by what they were made from.
//!
//! A cache may only make things faster. Whatever is wrong with it, a look-up is a miss and the module is
//! compiled again; deleting it at any moment is safe, also while programs run that were loaded from it.
//!
//! ```text
//! DIR          0700   the cache
//!   KEY        0400   an entry: a code image, sealed with its key and digest; KEY in 64 hex digits
//!   .new-…            an entry under way, where the file system has no unnamed files
//! RUN          0700   on a file system that a restart of the machine empties
//!   verified/KEY      the entry's identity when its digest was last computed
//!   digests/FILE      the digest of a module, by the identity of its file
//!   locks/KEY         held by whoever compiles for that key
//! ```
//!
//! # Trust
//!
//! Only its owner can write to the cache, and only under a key computed from the bytes that were
//! compiled. An entry's digest is computed when it is published, and again when it is first used after
//! a restart of the machine; then device, inode, size and time of change are kept in `RUN`, and a
//! look-up compares those. Whoever changes an entry later, be it a failing disk, changes one of them.

mod entry;
mod evict;
mod key;
mod lock;
mod memory;
mod place;
mod publish;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};

pub use entry::{Entry, Fault};
pub use evict::{Bounds, Pruned};
pub use key::{Key, NotAKey, Scope};
pub use lock::Lock;
pub use memory::FileIdentity;
pub use place::{BadSize, ENV_DIR, ENV_MIB, ENV_RUN, Place};
pub use publish::Unpublished;

use memory::Memory;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {path}: {source}", path = path.display())]
pub struct CacheError {
    /// What was tried.
    pub act: &'static str,
    /// What it was tried on.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// An open cache.
#[derive(Debug)]
pub struct Cache {
    dir: OwnedFd,
    path: PathBuf,
    run: Option<Memory>,
    bounds: Bounds,
}

impl Cache {
    /// Opens the cache, and makes its folders if they are not there.
    ///
    /// # Errors
    /// When a folder cannot be made, is not this user's own, or others have rights to it; when code
    /// cannot be run from there.
    pub fn open(place: &Place) -> Result<Cache, CacheError> {
        let dir = own_folder(&place.dir)?;
        let mount = rustix::fs::fstatvfs(&dir);
        if mount.is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
            let source = io::Error::other("its file system is mounted noexec");
            return Err(CacheError { act: "run code from", path: place.dir.clone(), source });
        }
        let run = place.run.as_deref().map(Memory::open).transpose()?;
        Ok(Cache { dir, path: place.dir.clone(), run, bounds: place.bounds })
    }

    /// Its folder, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The code image for a key, open for reading and ready to be mapped; `None` if there is none that
    /// can be trusted. A damaged entry is removed.
    ///
    /// # Errors
    /// When the system fails in a way that says nothing about the entry.
    pub fn get(&self, key: &Key) -> Result<Option<File>, CacheError> {
        let Some(file) = self.open_entry(key)? else { return Ok(None) };
        match self.check(key, &file) {
            Ok(()) => Ok(Some(file)),
            Err(Fault::Read(source)) => Err(self.error("read", key, source)),
            Err(fault) => {
                tracing::warn!(%key, %fault, "entry of the code cache removed");
                self.remove(key)?;
                Ok(None)
            }
        }
    }

    /// The digest of a module that was found before in a file of that identity.
    #[must_use]
    pub fn known_digest(&self, identity: &FileIdentity) -> Option<[u8; 32]> {
        self.run.as_ref()?.digest(identity)
    }

    /// Keeps the digest of a module's file until the machine restarts, unless the file has changed just
    /// now: its time of change might not tell the next change.
    pub fn keep_digest(&self, identity: &FileIdentity, digest: &[u8; 32]) {
        if let Some(run) = self.run.as_ref().filter(|_| identity.is_settled()) {
            run.set_digest(identity, digest);
        }
    }

    /// What is wrong with an entry, after computing its digest; `None` if nothing is, or there is none.
    ///
    /// # Errors
    /// When the entry cannot be opened at all.
    pub fn verify(&self, key: &Key) -> Result<Option<Fault>, CacheError> {
        let Some(file) = self.open_entry(key)? else { return Ok(None) };
        Ok(entry::verify(key, &file).err())
    }

    /// Removes an entry; programs that were loaded from it are not affected.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, key: &Key) -> Result<(), CacheError> {
        if let Some(run) = &self.run {
            run.forget(key);
        }
        match rustix::fs::unlinkat(&self.dir, key.name(), rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("remove", key, errno.into())),
        }
    }

    /// Opens what is under a key's name, whatever it is, without waiting or following a link.
    fn open_entry(&self, key: &Key) -> Result<Option<File>, CacheError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.dir, key.name(), flags | OFlags::NOCTTY, Mode::empty()) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            // A link, a socket, a device without a driver: nothing that was published here.
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO | rustix::io::Errno::NODEV) => {
                tracing::warn!(%key, "something that is no file removed from the code cache");
                self.remove(key).map(|()| None)
            }
            Err(errno) => Err(self.error("open", key, errno.into())),
        }
    }

    /// Whether an open entry can be trusted.
    fn check(&self, key: &Key, file: &File) -> Result<(), Fault> {
        let found = entry::inspect(file)?;
        let Some(run) = &self.run else { return entry::verify(key, file).map(drop) };
        if run.is_verified(key, &found) {
            return Ok(());
        }
        // Identity first: what changes while the digest is computed has another one afterwards.
        entry::verify(key, file)?;
        run.set_verified(key, &found);
        Ok(())
    }

    fn error(&self, act: &'static str, key: &Key, source: io::Error) -> CacheError {
        CacheError { act, path: self.path.join(key.to_string()), source }
    }
}

/// Opens a folder that must be this user's alone, and makes it and those above it if need be.
fn own_folder(path: &Path) -> Result<OwnedFd, CacheError> {
    let failed = |act| {
        let path = path.to_owned();
        move |source: io::Error| CacheError { act, path, source }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::open(path, flags, Mode::empty());
    let dir = match open() {
        Err(rustix::io::Errno::NOENT) => {
            make_folder(path).map_err(failed("make the folder"))?;
            open()
        }
        opened => opened,
    };
    let dir = dir.map_err(|errno| failed("open the folder")(errno.into()))?;
    let stat =
        rustix::fs::fstat(&dir).map_err(|errno| failed("look at the folder")(errno.into()))?;
    let owner = stat.st_uid == rustix::process::geteuid().as_raw();
    if !owner || stat.st_mode & 0o077 != 0 {
        let why = if owner {
            "others have rights to it (mode 0700 is needed)"
        } else {
            "it is somebody else's"
        };
        return Err(failed("trust the folder")(io::Error::other(why)));
    }
    Ok(dir)
}

/// The last folder of a path is private, those above it are not.
fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Names in a folder; those that are no text are none of ours.
fn names(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for item in rustix::fs::Dir::read_from(dir)? {
        names.extend(item?.file_name().to_str().ok().map(str::to_owned));
    }
    Ok(names)
}
