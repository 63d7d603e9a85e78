//! The container's `/dev`: device nodes that are what they claim to be, and the usual links.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, StatVfsMountFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::path;
use super::plan::Device;
use super::runner::{Act, Failure};

/// Links of the OCI runtime specification, "Dev symbolic links", and `ptmx` of its default devices.
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Opens the host's null device as a mount source, after making sure that it is one.
pub(super) fn host_null() -> Result<OwnedFd, Failure> {
    host_device(Path::new("/dev/null"), libc::S_IFCHR, (1, 3)).act("open", "the host's /dev/null")
}

/// Creates the nodes, or binds the host's where a user namespace forbids their creation or the mount
/// that they would lie on does not let devices work.
pub(super) fn make_all(
    root: BorrowedFd<'_>,
    devices: &[Device],
    user_namespace: bool,
) -> Result<(), Failure> {
    for device in devices {
        make(root, device, user_namespace).act("make the device", device.path.display())?;
    }
    Ok(())
}

/// Makes the usual links.
pub(super) fn make_links(root: BorrowedFd<'_>) -> Result<(), Failure> {
    for (at, target) in LINKS {
        link(root, Path::new(at), Path::new(target)).act("make the link", at)?;
    }
    Ok(())
}

fn make(root: BorrowedFd<'_>, device: &Device, user_namespace: bool) -> io::Result<()> {
    let (parent, name) = path::make_parent(root, &device.path)?;
    let no_devices = rustix::fs::fstatvfs(&parent)?.f_flag.contains(StatVfsMountFlags::NODEV);
    if device.kind != libc::S_IFIFO && (user_namespace || no_devices) {
        bind(root, device)?;
    } else {
        create(parent.as_fd(), &name, device)?;
    }
    // One name in a folder that was opened above; the node itself may be a mount.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(&parent, &name, flags, Mode::empty())?;
    verify(node.as_fd(), device.kind, (device.major, device.minor))
}

fn create(parent: BorrowedFd<'_>, name: &OsStr, device: &Device) -> io::Result<()> {
    let kind = FileType::from_raw_mode(device.kind);
    let mode = Mode::from_raw_mode(device.mode);
    let number = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(parent, name, kind, mode, number) {
        Ok(()) => {
            let owner = (Uid::from_raw(device.owner.0), Gid::from_raw(device.owner.1));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            Ok(rustix::fs::chownat(parent, name, Some(owner.0), Some(owner.1), flags)?)
        }
        // The image or an earlier mount has something there: it must be the very same device.
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn bind(root: BorrowedFd<'_>, device: &Device) -> io::Result<()> {
    let source = host_device(&device.path, device.kind, (device.major, device.minor))?;
    let target = path::make_file(root, &device.path)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(&source, c"", &target, c"", flags)?)
}

/// A detached mount of a device node of the host.
fn host_device(at: &Path, kind: u32, number: (u32, u32)) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let source = rustix::mount::open_tree(rustix::fs::CWD, at, flags)?;
    verify(source.as_fd(), kind, number)?;
    Ok(source)
}

/// Refuses anything but the device of this type and number, such as a file or a symlink that an image
/// has put in its place.
fn verify(node: BorrowedFd<'_>, kind: u32, number: (u32, u32)) -> io::Result<()> {
    let stat = rustix::fs::fstat(node)?;
    let found = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let same_number = kind == libc::S_IFIFO || found == number;
    if stat.st_mode & libc::S_IFMT == kind && same_number {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "something else is in its place (mode {:o}, device {}:{} instead of {}:{})",
        stat.st_mode, found.0, found.1, number.0, number.1
    )))
}

/// Makes a symlink; one that the image or a mount already has is left alone.
fn link(root: BorrowedFd<'_>, at: &Path, target: &Path) -> io::Result<()> {
    let (parent, name) = path::make_parent(root, at)?;
    match rustix::fs::symlinkat(target, &parent, &name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // A read-only /dev of the image that lacks them is the image's choice.
        Err(Errno::ROFS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn device(path: &str) -> Device {
        let (kind, mode) = (libc::S_IFCHR, 0o666);
        Device { path: path.into(), kind, major: 1, minor: 3, mode, owner: (0, 0) }
    }

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn makes_the_node_and_accepts_it_the_second_time() {
        let (dir, fd) = root();
        make(fd.as_fd(), &device("/dev/null"), false).unwrap();
        make(fd.as_fd(), &device("/dev/null"), false).unwrap();
        std::fs::write(dir.path().join("dev/null"), "swallowed").unwrap();
        assert_eq!(std::fs::read(dir.path().join("dev/null")).unwrap(), b"");
    }

    #[test]
    fn refuses_symlinks_files_and_other_devices_in_its_place() {
        for case in 0..3 {
            let (dir, fd) = root();
            let null = dir.path().join("dev/null");
            std::fs::create_dir(dir.path().join("dev")).unwrap();
            match case {
                0 => symlink("/dev/null", &null).unwrap(),
                1 => std::fs::write(&null, "").unwrap(),
                _ => make(fd.as_fd(), &Device { minor: 5, ..device("/dev/null") }, false).unwrap(),
            }
            assert!(make(fd.as_fd(), &device("/dev/null"), false).is_err(), "case {case}");
        }
    }

    #[test]
    fn the_hosts_null_is_verified() {
        host_null().unwrap();
        assert!(host_device(Path::new("/dev/zero"), libc::S_IFCHR, (1, 3)).is_err());
    }
}
