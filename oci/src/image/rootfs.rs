//! Opening a file as the container would see it, before its mounts are made.
//!
//! The module is looked up while only the root file system is mounted, yet the entry point may lie
//! in a volume. So the path is walked by hand, one component after the other, over the root file
//! system and the sources of the bind mounts. No step lets the kernel follow a link: links are read
//! and spliced into the path inside the container, so none can lead to the host.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::fault::EntryFault;
use crate::error::ImageError;
use crate::spec::{Mount, MountFlags};

/// Links followed at most, as in the kernel (`path_resolution(7)`).
const LINK_LIMIT: usize = 40;

/// Longest path that is walked, in bytes; `PATH_MAX` of `limits.h`.
const PATH_LIMIT: usize = 4096;

/// The container's file system before its mounts are made.
pub(crate) struct View<'a> {
    rootfs: OwnedFd,
    mounts: &'a [Mount],
}

/// Where a path inside the container really lies.
enum Place<'a> {
    /// Beneath a folder (or at a file) of the host, with the rest of the path.
    Rootfs(PathBuf),
    Bind(&'a Path, PathBuf),
    /// On a file system that does not exist yet.
    Virtual(&'a str),
}

impl<'a> View<'a> {
    /// The root file system at `rootfs`, with `mounts` to come.
    pub(crate) fn new(rootfs: &Path, mounts: &'a [Mount]) -> Result<Self, ImageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let rootfs = rustix::fs::open(rootfs, flags, Mode::empty()).map_err(|errno| {
            ImageError::Rootfs { path: rootfs.to_path_buf(), source: errno.into() }
        })?;
        Ok(Self { rootfs, mounts })
    }

    /// The file system of a container that runs, by its root: its mounts are made.
    pub(crate) fn running(root: OwnedFd) -> Self {
        Self { rootfs: root, mounts: &[] }
    }

    /// Opens the regular file `path` for reading; returns its path with all links resolved.
    pub(crate) fn open(&self, path: &Path) -> Result<(PathBuf, File, Stat), EntryFault> {
        if path.as_os_str().len() >= PATH_LIMIT {
            return Err(open_fault(path)(Errno::NAMETOOLONG));
        }
        let mut pending = components(path.as_os_str());
        let mut current = PathBuf::from("/");
        let mut links = 0;
        while let Some(component) = pending.pop_front() {
            if component == ".." {
                current.pop();
                continue;
            }
            let next = current.join(&component);
            let Some((handle, stat)) = self.step(path, &next)? else {
                current = next;
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => current = next,
                FileType::Symlink => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return Err(EntryFault::Links { path: path.to_path_buf() });
                    }
                    let target = read_link(&handle).map_err(open_fault(path))?;
                    if target.as_bytes().first() == Some(&b'/') {
                        current = PathBuf::from("/");
                    }
                    let rest = std::mem::take(&mut pending);
                    pending = components(&target);
                    pending.extend(rest);
                }
                FileType::RegularFile if pending.is_empty() => {
                    let file = reopen(&handle).map_err(open_fault(path))?;
                    return Ok((next, file, stat));
                }
                FileType::RegularFile => return Err(not_found(path)),
                other => return Err(not_regular(path, other)),
            }
        }
        Err(not_regular(path, FileType::Directory))
    }

    /// A handle of `next`, whose folder is known to hold no links, and what it is; `None` for a
    /// folder that does not exist yet, but will be made to carry a mount beneath it.
    fn step(&self, path: &Path, next: &Path) -> Result<Option<(OwnedFd, Stat)>, EntryFault> {
        let handle = match self.place(next) {
            Place::Rootfs(rest) => open_beneath(&self.rootfs, &rest),
            Place::Bind(source, rest) => open_bind(source, &rest),
            Place::Virtual(kind) => {
                // Its mount point exists as a folder once it is mounted, whatever the image has.
                let (path, kind) = (path.to_path_buf(), kind.to_owned());
                return Err(EntryFault::OnMount { path, kind });
            }
        };
        let found = handle.and_then(|handle| Ok((rustix::fs::fstat(&handle)?, handle)));
        match found {
            Ok((stat, handle)) => Ok(Some((handle, stat))),
            Err(Errno::NOENT) if self.carries_mount(next) => Ok(None),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(not_found(path)),
            Err(errno) => Err(open_fault(path)(errno)),
        }
    }

    fn carries_mount(&self, folder: &Path) -> bool {
        self.mounts.iter().any(|mount| mount.destination.starts_with(folder))
    }

    /// The last mount over `path` decides, since mounts are made in the listed order.
    fn place(&self, path: &Path) -> Place<'a> {
        let mounts = self.mounts.iter().rev();
        for mount in mounts.filter(|mount| !mount.flags.contains(MountFlags::REMOUNT)) {
            let Ok(rest) = path.strip_prefix(&mount.destination) else { continue };
            return match &mount.source {
                Some(source) if mount.is_bind() => Place::Bind(source, rest.to_path_buf()),
                _ => Place::Virtual(&mount.kind),
            };
        }
        Place::Rootfs(path.strip_prefix("/").unwrap_or(path).to_path_buf())
    }
}

/// The names of a path, without `/` and `.`.
fn components(path: &OsStr) -> VecDeque<OsString> {
    let names = Path::new(path).components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

/// Opens a name without following any link, its own included.
fn open_beneath(folder: &OwnedFd, rest: &Path) -> rustix::io::Result<OwnedFd> {
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(folder, rest, flags, Mode::empty(), resolve)
}

/// Opens a bind mount's source, chosen by whoever made the container, or a name beneath it.
fn open_bind(source: &Path, rest: &Path) -> rustix::io::Result<OwnedFd> {
    let source = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if rest.as_os_str().is_empty() { Ok(source) } else { open_beneath(&source, rest) }
}

fn read_link(link: &OwnedFd) -> rustix::io::Result<OsString> {
    let target = rustix::fs::readlinkat(link, "", Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()))
}

/// Opens for reading exactly the file that was looked at: a handle cannot be exchanged.
fn reopen(handle: &OwnedFd) -> rustix::io::Result<File> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from)
}

fn not_found(path: &Path) -> EntryFault {
    EntryFault::NotFound { path: path.display().to_string(), searched: vec![path.to_path_buf()] }
}

fn not_regular(path: &Path, kind: FileType) -> EntryFault {
    let kind = match kind {
        // The word of which Docker makes its exit code 126.
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    };
    EntryFault::NotRegular { path: path.to_path_buf(), kind }
}

fn open_fault(path: &Path) -> impl Fn(Errno) -> EntryFault {
    let path = path.to_path_buf();
    move |errno| EntryFault::Open { path: path.clone(), source: io::Error::from(errno) }
}
