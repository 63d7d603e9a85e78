//! `tmpcopyup`: filling a new tmpfs with what the image has at its destination.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};

use super::path;

/// Deepest folder nesting that is copied.
const DEPTH_LIMIT: usize = 64;

/// Copies folders, regular files and symlinks with owner and mode; everything else is left out.
/// Symlinks are copied, never followed.
pub(super) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let target = path::open_strict(to, Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?;
    copy_folder(from, target.as_fd(), &stat, 0)
}

fn copy_folder(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
    depth: usize,
) -> io::Result<()> {
    if depth > DEPTH_LIMIT {
        return Err(io::Error::other(format!("folders nest deeper than {DEPTH_LIMIT}")));
    }
    let readable = path::open_strict(from, Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?;
    for entry in Dir::read_from(&readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(&readable, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let inner = open(readable.as_fd(), name, flags)?;
                let made = open(to, name, flags)?;
                copy_folder(inner.as_fd(), made.as_fd(), &stat, depth + 1)?;
            }
            FileType::RegularFile => copy_file(readable.as_fd(), to, name, &stat)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&readable, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                let owner = owner(&stat);
                rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {}
        }
    }
    finish(to, stat)
}

fn copy_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    stat: &Stat,
) -> io::Result<()> {
    let source = open(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let made = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    finish(made.as_fd(), stat)?;
    io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(made))?;
    Ok(())
}

/// Owner before mode, since a change of owner clears the set-id bits.
fn finish(fd: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(fd, uid, gid)?;
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(stat.st_mode))?)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn open(dir: BorrowedFd<'_>, name: &std::ffi::CStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn copies_content_modes_and_links_but_does_not_follow() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        std::fs::create_dir(from.path().join("d")).unwrap();
        std::fs::write(from.path().join("d/f"), "text").unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(from.path().join("d/f"), mode).unwrap();
        symlink("/etc/passwd", from.path().join("link")).unwrap();
        let open = |p: &Path| rustix::fs::open(p, OFlags::PATH, Mode::empty()).unwrap();
        copy_tree(open(from.path()).as_fd(), open(to.path()).as_fd()).unwrap();
        let copy = to.path().join("d/f");
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "text");
        assert_eq!(std::fs::metadata(&copy).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_link(to.path().join("link")).unwrap(), Path::new("/etc/passwd"));
    }
}
