//! Paths of the guest: what may be in them, and opening them without leaving a directory.
//!
//! Two rules keep a guest inside what it was granted. A path of several components is resolved by
//! the kernel alone, with `openat2(2)` and `RESOLVE_BENEATH`: `..`, absolute paths and symbolic
//! links that lead out fail, however the tree changes meanwhile. Calls that have no such form get
//! an already opened parent and one last component, which is neither empty, `.`, `..` nor ends
//! with a slash, and they never follow it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::error::{Error, Result};

/// How often an open is tried again when the kernel saw a rename race (`EAGAIN`).
const ATTEMPTS: u32 = 256;

/// A path cut before its last component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut<'p> {
    /// Everything before; may be empty.
    pub parent: &'p [u8],
    /// The last component, or `None` if that is `.` or `..`.
    pub name: Option<&'p [u8]>,
    /// Slashes followed: the path can only mean a directory.
    pub slash: bool,
}

/// Refuses what no path may be: empty, absolute, with a NUL byte.
pub(super) fn check(path: &[u8]) -> Result<()> {
    match path {
        [] => Err(Errno::NOENT.into()),
        [b'/', ..] => Err(Error::Escape),
        _ if path.contains(&0) => Err(Error::Invalid),
        _ => Ok(()),
    }
}

/// Cuts a path before its last component.
pub(super) fn cut(path: &[u8]) -> Result<Cut<'_>> {
    check(path)?;
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
    let (path, slash) = (&path[..end], end < path.len());
    let start = path.iter().rposition(|&b| b == b'/').map_or(0, |before| before + 1);
    let (parent, name) = path.split_at(start);
    let name = Some(name).filter(|name| !matches!(*name, b"." | b".."));
    Ok(Cut { parent, name, slash })
}

/// Opens a path beneath `dir`.
pub(super) fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    check(path)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut attempts = 0;
    loop {
        match openat2(dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            // Some path component was renamed while a `..` was resolved.
            Err(Errno::AGAIN) if attempts < ATTEMPTS => {
                attempts += 1;
                rustix::thread::sched_yield();
            }
            Err(Errno::INTR) => {}
            // Only resolution itself can cross a border here; real mounts may be crossed.
            Err(Errno::XDEV) => return Err(Error::Escape),
            result => return Ok(result?),
        }
    }
}

/// The directory that a last component lies in.
#[derive(Debug)]
pub(super) enum Parent<'d> {
    /// The directory that the path started from.
    Start(BorrowedFd<'d>),
    /// Another one, opened for this operation.
    Opened(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Parent::Start(fd) => *fd,
            Parent::Opened(fd) => fd.as_fd(),
        }
    }
}

/// Opens the directory part of a cut path.
pub(super) fn open_parent<'d>(dir: BorrowedFd<'d>, cut: &Cut<'_>) -> Result<Parent<'d>> {
    if cut.parent.is_empty() {
        return Ok(Parent::Start(dir));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    open_beneath(dir, cut.parent, flags, Mode::empty()).map(Parent::Opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut_before_their_last_component() {
        let cases: [(&str, &str, Option<&str>, bool); 9] = [
            ("a", "", Some("a"), false),
            ("a/b", "a/", Some("b"), false),
            ("a//b///", "a//", Some("b"), true),
            ("../b", "../", Some("b"), false),
            (".", "", None, false),
            ("./", "", None, true),
            ("a/..", "a/", None, false),
            ("a/...", "a/", Some("..."), false),
            ("a/ ", "a/", Some(" "), false),
        ];
        for (path, parent, name, slash) in cases {
            let expected = Cut { parent: parent.as_bytes(), name: name.map(str::as_bytes), slash };
            assert_eq!(cut(path.as_bytes()), Ok(expected), "{path}");
        }
    }

    #[test]
    fn impossible_paths_are_refused() {
        assert_eq!(cut(b""), Err(Error::Os(Errno::NOENT)));
        assert_eq!(cut(b"/"), Err(Error::Escape));
        assert_eq!(cut(b"///a"), Err(Error::Escape));
        assert_eq!(cut(b"a\0"), Err(Error::Invalid));
    }
}
