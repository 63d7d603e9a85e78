//! Directories: opening and changing what lies beneath one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode as Permissions, OFlags};
use rustix::io::Errno;

use super::error::{Error, Result};
use super::file::{Access, File};
use super::listing::{Entry, Listing};
use super::mode::Mode;
use super::object::Object;
use super::path::{Cut, Parent, cut, open_beneath, open_parent};
use super::stat::{Kind, NewTimes, Stat};

/// How a path is opened.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct OpenOptions {
    pub access: Access,
    /// A symbolic link as the last component is followed.
    pub follow: bool,
    pub create: bool,
    /// With `create`: fail if it exists.
    pub exclusive: bool,
    pub truncate: bool,
    /// Fail unless it is a directory.
    pub directory: bool,
    pub mode: Mode,
}

/// A directory that the guest holds. Every operation stays beneath it.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    writable: bool,
    /// Made when the guest lists the directory for the first time.
    listing: Mutex<Option<Box<Listing>>>,
}

/// A last component and its parent.
struct Place<'d, 'p> {
    parent: Parent<'d>,
    name: &'p [u8],
    slash: bool,
}

impl Place<'_, '_> {
    fn kind(&self) -> Result<Kind> {
        let stat = rustix::fs::statat(&self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Kind::of(&stat))
    }

    /// With a slash behind it, something that exists must be a directory.
    fn existing(&self) -> Result<()> {
        if self.slash && self.kind()? != Kind::Directory {
            return Err(Error::NotDirectory);
        }
        Ok(())
    }

    /// A link cannot be made under a name with a slash behind it.
    fn fresh(&self) -> Result<()> {
        if self.slash {
            self.existing()?;
            return Err(Errno::EXIST.into());
        }
        Ok(())
    }
}

impl Dir {
    /// Takes an open directory (opened for reading, not with `O_PATH`). With `writable` false
    /// nothing beneath it can be changed through it.
    ///
    /// # Errors
    /// [`Error::NotDirectory`], or what `fstat(2)` says.
    pub fn adopt(fd: OwnedFd, writable: bool) -> Result<Dir> {
        if Kind::of(&rustix::fs::fstat(&fd)?) != Kind::Directory {
            return Err(Error::NotDirectory);
        }
        Ok(Dir { fd, writable, listing: Mutex::default() })
    }

    /// Opens a file or directory. Pipes and devices never make this wait.
    ///
    /// # Errors
    /// [`Error::Escape`], [`Error::ReadOnly`], or what `openat2(2)` says.
    pub fn open(&self, path: &[u8], options: &OpenOptions) -> Result<Object> {
        let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        flags |= match options.access {
            Access { read: true, write: true } => OFlags::RDWR,
            Access { write: true, .. } => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        flags.set(OFlags::NOFOLLOW, !options.follow);
        flags.set(OFlags::DIRECTORY, options.directory);
        flags.set(OFlags::TRUNC, options.truncate);
        flags.set(OFlags::CREATE, options.create);
        flags.set(OFlags::EXCL, options.create && options.exclusive);
        let fd = self.open_allowed(path, flags)?;
        self.object(fd, options)
    }

    fn open_allowed(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let fresh = if flags.contains(OFlags::CREATE) { 0o666 } else { 0 };
        if self.writable {
            return open_beneath(self.fd.as_fd(), path, flags, Permissions::from_raw_mode(fresh));
        }
        let changes = flags.contains(OFlags::TRUNC) || (flags & OFlags::RWMODE) != OFlags::RDONLY;
        let existing = flags - (OFlags::CREATE | OFlags::EXCL | OFlags::TRUNC | OFlags::RWMODE);
        match open_beneath(self.fd.as_fd(), path, existing, Permissions::empty()) {
            Ok(_) if flags.contains(OFlags::EXCL) => Err(Errno::EXIST.into()),
            Ok(_) if changes => Err(Error::ReadOnly),
            Err(Error::Os(Errno::NOENT)) if flags.contains(OFlags::CREATE) => Err(Error::ReadOnly),
            result => result,
        }
    }

    fn object(&self, fd: OwnedFd, options: &OpenOptions) -> Result<Object> {
        let kind =
            if options.directory { Kind::Directory } else { Kind::of(&rustix::fs::fstat(&fd)?) };
        Ok(match kind {
            Kind::Directory => {
                Object::Dir(Dir { fd, writable: self.writable, listing: Mutex::default() })
            }
            kind => {
                let access =
                    Access { read: options.access.read || !options.access.write, ..options.access };
                Object::File(File::opened(fd, kind, access, options.mode, !self.writable))
            }
        })
    }

    /// The attributes of this directory.
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn stat(&self) -> Result<Stat> {
        Ok(Stat::from_host(&rustix::fs::fstat(&self.fd)?))
    }

    /// The attributes of what lies at `path`.
    ///
    /// # Errors
    /// [`Error::Escape`], or what `openat2(2)` and `fstat(2)` say.
    pub fn stat_at(&self, path: &[u8], follow: bool) -> Result<Stat> {
        let cut = cut(path)?;
        if let Cut { parent: [], name: Some(name), slash: false } = cut {
            // The usual case in one call: a plain name that is no link to follow.
            let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if !follow || Kind::of(&stat) != Kind::SymbolicLink {
                return Ok(Stat::from_host(&stat));
            }
        }
        let fd = self.open_any(path, follow)?;
        Ok(Stat::from_host(&rustix::fs::fstat(&fd)?))
    }

    /// Changes this directory's times.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], or what `futimens(3)` says.
    pub fn set_times(&self, times: NewTimes) -> Result<()> {
        self.changes()?;
        Ok(rustix::fs::futimens(&self.fd, &times.to_host())?)
    }

    /// Changes the times of what lies at `path`.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Escape`], or what `utimensat(2)` says.
    pub fn set_times_at(&self, path: &[u8], follow: bool, times: NewTimes) -> Result<()> {
        self.changes()?;
        let fd = self.open_any(path, follow)?;
        Ok(rustix::fs::utimensat(&fd, "", &times.to_host(), AtFlags::EMPTY_PATH)?)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Escape`], or what `mkdirat(2)` says.
    pub fn create_dir(&self, path: &[u8]) -> Result<()> {
        self.changes()?;
        let place = self.place(path, Errno::EXIST)?;
        let permissions = Permissions::from_raw_mode(0o777);
        Ok(rustix::fs::mkdirat(&place.parent, place.name, permissions)?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Escape`], or what `unlinkat(2)` says.
    pub fn remove_dir(&self, path: &[u8]) -> Result<()> {
        self.changes()?;
        let place = self.place(path, Errno::INVAL)?;
        Ok(rustix::fs::unlinkat(&place.parent, place.name, AtFlags::REMOVEDIR)?)
    }

    /// Removes a file or link.
    ///
    /// # Errors
    /// [`Error::IsDirectory`], [`Error::NotDirectory`] for a slash behind a file,
    /// [`Error::ReadOnly`], [`Error::Escape`], or what `unlinkat(2)` says.
    pub fn remove_file(&self, path: &[u8]) -> Result<()> {
        self.changes()?;
        let place = self.place(path, Errno::ISDIR)?;
        if place.slash {
            place.existing()?;
            return Err(Error::IsDirectory);
        }
        Ok(rustix::fs::unlinkat(&place.parent, place.name, AtFlags::empty())?)
    }

    /// Moves what lies at `from` to the path `to` beneath `target`.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if either side is, [`Error::Escape`], or what `renameat(2)` says.
    pub fn rename(&self, from: &[u8], target: &Dir, to: &[u8]) -> Result<()> {
        self.changes()?;
        target.changes()?;
        let old = self.place(from, Errno::BUSY)?;
        let new = target.place(to, Errno::BUSY)?;
        // A slash behind either name demands that a directory is moved.
        if (old.slash || new.slash) && old.kind()? != Kind::Directory {
            return Err(Error::NotDirectory);
        }
        Ok(rustix::fs::renameat(&old.parent, old.name, &new.parent, new.name)?)
    }

    /// Makes another name for the file at `from`; a symbolic link there is not followed.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if either side is (the new name would allow to write the file),
    /// [`Error::Escape`], or what `linkat(2)` says.
    pub fn link(&self, from: &[u8], target: &Dir, to: &[u8]) -> Result<()> {
        self.changes()?;
        target.changes()?;
        let old = self.place(from, Errno::PERM)?;
        let new = target.place(to, Errno::EXIST)?;
        old.existing()?;
        new.fresh()?;
        let flags = AtFlags::empty();
        Ok(rustix::fs::linkat(&old.parent, old.name, &new.parent, new.name, flags)?)
    }

    /// Makes a symbolic link that holds `content`.
    ///
    /// # Errors
    /// [`Error::Escape`] for absolute content, [`Error::ReadOnly`], or what `symlinkat(2)` says.
    pub fn symlink(&self, content: &[u8], path: &[u8]) -> Result<()> {
        self.changes()?;
        super::path::check(content)?;
        let place = self.place(path, Errno::EXIST)?;
        place.fresh()?;
        Ok(rustix::fs::symlinkat(content, &place.parent, place.name)?)
    }

    /// Reads a symbolic link's content; what does not fit into `buffer` is cut off.
    ///
    /// # Errors
    /// `EINVAL` for anything but a link, [`Error::Escape`], or what `readlinkat(2)` says.
    pub fn read_link(&self, path: &[u8], buffer: &mut [u8]) -> Result<usize> {
        let place = self.place(path, Errno::INVAL)?;
        if place.slash {
            self.open_any(path, true)?;
            return Err(Error::Invalid);
        }
        if buffer.is_empty() {
            // The kernel refuses an empty buffer; the guest may ask whether a link is there.
            return match place.kind()? {
                Kind::SymbolicLink => Ok(0),
                _ => Err(Error::Invalid),
            };
        }
        Ok(rustix::fs::readlinkat_raw(&place.parent, place.name, buffer)?)
    }

    /// Goes through the entries after the one with this cookie (0: from the beginning) for as long
    /// as `each` returns true. The entry that it refuses comes first the next time.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an impossible cookie; what `getdents64(2)` says.
    pub fn list(&self, cookie: u64, mut each: impl FnMut(Entry<'_>) -> bool) -> Result<()> {
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let listing = listing.get_or_insert_default();
        listing.seek(self.fd.as_fd(), cookie)?;
        while let Some(entry) = listing.peek(self.fd.as_fd())? {
            if !each(entry) {
                break;
            }
            listing.advance();
        }
        Ok(())
    }

    /// Writes the directory to disk.
    ///
    /// # Errors
    /// What `fsync(2)` says.
    pub fn sync(&self) -> Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    fn changes(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(Error::ReadOnly) }
    }

    /// The place of a path's last component. `.` and `..` name no place: they give `special` if
    /// they can be reached at all.
    fn place<'d, 'p>(&'d self, path: &'p [u8], special: Errno) -> Result<Place<'d, 'p>> {
        let cut = cut(path)?;
        let Some(name) = cut.name else {
            self.open_any(path, true)?;
            return Err(special.into());
        };
        Ok(Place { parent: open_parent(self.fd.as_fd(), &cut)?, name, slash: cut.slash })
    }

    /// A handle to anything at all, good for its attributes only.
    fn open_any(&self, path: &[u8], follow: bool) -> Result<OwnedFd> {
        let mut flags = OFlags::PATH;
        flags.set(OFlags::NOFOLLOW, !follow);
        open_beneath(self.fd.as_fd(), path, flags, Permissions::empty())
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
