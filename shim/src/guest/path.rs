//! Resolving and creating paths inside a root that an image controls.
//!
//! An image may hold a symlink anywhere, so nothing here ever hands a path of the container to a call
//! that would resolve it against the host. Every step is `openat2` with `RESOLVE_IN_ROOT`, and every
//! change is made relative to a descriptor, on one final name.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often `openat2` is repeated when renames elsewhere on the host disturb it; see openat2(2).
const RETRIES: u32 = 128;

/// Opens `path` as the process inside `root` would see it. Absolute symlinks stay in the root.
pub(super) fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_with(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `dir` without following any symlink and without leaving its mount.
pub(super) fn open_strict(dir: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    open_with(dir, path, flags, resolve)
}

fn open_with(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    // An empty path is an error for openat2; the root itself is meant.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut tries = 0;
    loop {
        let opened =
            rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        match opened {
            Err(Errno::AGAIN | Errno::INTR) if tries < RETRIES => tries += 1,
            opened => return opened.map_err(io::Error::from),
        }
    }
}

/// Opens the folder `path` in `root`, creating what is missing with mode 0755.
pub(super) fn make_dir(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_in(root, path, flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let names = names(path)?;
    let part = |count: usize| -> PathBuf { names.iter().take(count).collect() };
    // Most often only the last one is missing, so what is there is looked for from the end.
    let mut there = names.len();
    let mut folder = loop {
        there = there.saturating_sub(1);
        match open_in(root, &part(there), flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && there > 0 => {}
            opened => break opened?,
        }
    };
    for (at, name) in names.iter().enumerate().skip(there) {
        // A dangling symlink also is "not found"; then mkdirat says that the name exists.
        match rustix::fs::mkdirat(&folder, *name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        folder = open_in(root, &part(at + 1), flags)?;
    }
    Ok(folder)
}

/// Opens something at `path` in `root` as the target of a file mount, creating an empty file if
/// nothing is there.
pub(super) fn make_file(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    match open_in(root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let (parent, name) = make_parent(root, path)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    open_in(root, path, OFlags::PATH)
}

/// Opens the folder that holds `path`, creating it if missing, and the final name.
pub(super) fn make_parent(
    root: BorrowedFd<'_>,
    path: &Path,
) -> io::Result<(OwnedFd, std::ffi::OsString)> {
    let all = names(path)?;
    let Some((name, parents)) = all.split_last() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no final name"));
    };
    let folder: PathBuf = parents.iter().collect();
    Ok((make_dir(root, &folder)?, (*name).to_owned()))
}

/// The names of a path without `..`.
fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    path.components()
        .filter(|c| !matches!(c, Component::RootDir | Component::CurDir))
        .map(|c| match c {
            Component::Normal(name) => Ok(name),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path contains `..`")),
        })
        .collect()
}

/// The type of what a descriptor refers to.
pub(super) fn kind(fd: impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn folders_are_made_below_the_root_even_through_absolute_symlinks() {
        let (dir, fd) = root();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink("/real", dir.path().join("link")).unwrap();
        make_dir(fd.as_fd(), Path::new("/link/a/b")).unwrap();
        assert!(dir.path().join("real/a/b").is_dir());
        assert!(!Path::new("/real/a").exists());
    }

    #[test]
    fn a_symlink_that_climbs_stays_in_the_root() {
        let (dir, fd) = root();
        symlink("../../../../../../../../tmp", dir.path().join("up")).unwrap();
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        make_file(fd.as_fd(), Path::new("/up/coracle-climb")).unwrap();
        assert!(dir.path().join("tmp/coracle-climb").is_file());
        assert!(!Path::new("/tmp/coracle-climb").exists());
    }

    #[test]
    fn dangling_symlinks_and_parent_components_are_refused() {
        let (dir, fd) = root();
        symlink("/nowhere/x", dir.path().join("dangling")).unwrap();
        assert!(make_dir(fd.as_fd(), Path::new("/dangling/a")).is_err());
        assert!(make_file(fd.as_fd(), Path::new("/dangling")).is_err());
        assert!(make_dir(fd.as_fd(), Path::new("/missing/../../x")).is_err());
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn a_file_in_the_way_of_a_folder_is_an_error() {
        let (dir, fd) = root();
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(make_dir(fd.as_fd(), Path::new("/file/a")).is_err());
        assert!(make_dir(fd.as_fd(), Path::new("/file")).is_err());
    }
}
