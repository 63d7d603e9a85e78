//! The container's `/dev`: device nodes that are what they claim to be, and the usual links.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

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
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_device(Path::new("/dev/null"), flags, libc::S_IFCHR, (1, 3))
        .act("open", "the host's /dev/null")
}

/// Creates the nodes, or binds the host's where a user namespace forbids their creation or the mount
/// that they would lie on does not let devices work; then the usual links.
pub(super) fn make_all(
    root: BorrowedFd<'_>,
    devices: &[Device],
    user_namespace: bool,
) -> Result<(), Failure> {
    let mut folders = Folders { root, last: None };
    for device in devices {
        make(&mut folders, device, user_namespace).act("make the device", device.path.display())?;
    }
    for (at, target) in LINKS {
        link(&mut folders, Path::new(at), Path::new(target)).act("make the link", at)?;
    }
    Ok(())
}

/// The folders of devices. Nearly always all lie in `/dev`, so the last one stays open.
struct Folders<'r> {
    root: BorrowedFd<'r>,
    last: Option<(PathBuf, Folder)>,
}

/// A folder that nodes are made in.
struct Folder {
    fd: OwnedFd,
    /// Devices do not work there.
    no_devices: bool,
    /// New nodes get its group instead of their maker's.
    gives_group: bool,
}

impl Folders<'_> {
    /// The folder of a path, which is made if it is missing, and the final name.
    fn of<'p>(&mut self, at: &'p Path) -> io::Result<(&Folder, &'p OsStr)> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "the path has no final name");
        let (parent, name) = at.parent().zip(at.file_name()).ok_or_else(none)?;
        let last = match self.last.take() {
            Some(last) if last.0 == parent => last,
            _ => (parent.to_owned(), Folder::open(self.root, parent)?),
        };
        Ok((&self.last.insert(last).1, name))
    }
}

impl Folder {
    fn open(root: BorrowedFd<'_>, at: &Path) -> io::Result<Self> {
        let fd = path::make_dir(root, at)?;
        let no_devices = rustix::fs::fstatvfs(&fd)?.f_flag.contains(StatVfsMountFlags::NODEV);
        let gives_group = rustix::fs::fstat(&fd)?.st_mode & libc::S_ISGID != 0;
        Ok(Self { fd, no_devices, gives_group })
    }
}

fn make(folders: &mut Folders<'_>, device: &Device, user_namespace: bool) -> io::Result<()> {
    let root = folders.root;
    let (folder, name) = folders.of(&device.path)?;
    let is_pipe = device.kind == libc::S_IFIFO;
    let made = match user_namespace || folder.no_devices {
        true if !is_pipe => None,
        _ => match create(folder, name, device) {
            // The shim itself is in a user namespace.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_pipe => None,
            made => Some(made?),
        },
    };
    match made {
        // The kernel has made just what was asked for.
        Some(true) => return Ok(()),
        Some(false) => {}
        None => bind(root, device)?,
    }
    // One name in a folder that was opened above; the node itself may be a mount.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(&folder.fd, name, flags, Mode::empty())?;
    verify(node.as_fd(), device.kind, (device.major, device.minor))
}

/// Makes a node; `false` when something is there already. This process is root, and so is whose the node is then.
fn create(folder: &Folder, name: &OsStr, device: &Device) -> io::Result<bool> {
    let kind = FileType::from_raw_mode(device.kind);
    let mode = Mode::from_raw_mode(device.mode);
    let number = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(&folder.fd, name, kind, mode, number) {
        Ok(()) if device.owner == (0, 0) && !folder.gives_group => Ok(true),
        Ok(()) => {
            let owner = (Uid::from_raw(device.owner.0), Gid::from_raw(device.owner.1));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&folder.fd, name, Some(owner.0), Some(owner.1), flags)?;
            Ok(true)
        }
        // The image or an earlier mount has something there: it must be the very same device.
        Err(Errno::EXIST) => Ok(false),
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
    open_device(at, flags, kind, number)
}

fn open_device(
    at: &Path,
    flags: OpenTreeFlags,
    kind: u32,
    number: (u32, u32),
) -> io::Result<OwnedFd> {
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
fn link(folders: &mut Folders<'_>, at: &Path, target: &Path) -> io::Result<()> {
    let (folder, name) = folders.of(at)?;
    match rustix::fs::symlinkat(target, &folder.fd, name) {
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

    fn make(root: BorrowedFd<'_>, device: &Device) -> io::Result<()> {
        super::make(&mut Folders { root, last: None }, device, false)
    }

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn makes_the_node_and_accepts_it_the_second_time() {
        let (dir, fd) = root();
        make(fd.as_fd(), &device("/dev/null")).unwrap();
        make(fd.as_fd(), &device("/dev/null")).unwrap();
        std::fs::write(dir.path().join("dev/null"), "swallowed").unwrap();
        assert_eq!(std::fs::read(dir.path().join("dev/null")).unwrap(), b"");
    }

    #[test]
    fn nodes_of_several_folders_have_their_owners() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let (dir, fd) = root();
        std::fs::create_dir(dir.path().join("shared")).unwrap();
        let shared = dir.path().join("shared");
        std::os::unix::fs::chown(&shared, None, Some(77)).unwrap();
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o2755)).unwrap();
        let mut folders = Folders { root: fd.as_fd(), last: None };
        let owned = Device { owner: (5, 6), ..device("/dev/owned") };
        let all = [device("/dev/null"), owned, device("/shared/root"), device("/dev/net/null")];
        for one in &all {
            super::make(&mut folders, one, false).unwrap();
        }
        let owner = |path: &str| {
            let found = dir.path().join(path).metadata().unwrap();
            (found.uid(), found.gid(), found.mode() & 0o7777)
        };
        assert_eq!(owner("dev/null"), (0, 0, 0o666 & !umask()));
        assert_eq!(owner("dev/owned"), (5, 6, 0o666 & !umask()));
        assert_eq!(owner("shared/root"), (0, 0, 0o666 & !umask()));
        assert_eq!(owner("dev/net/null"), (0, 0, 0o666 & !umask()));
    }

    /// That of the tests; a guest has none while it is built.
    fn umask() -> u32 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
        u32::from_str_radix(line.trim(), 8).unwrap()
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
                _ => make(fd.as_fd(), &Device { minor: 5, ..device("/dev/null") }).unwrap(),
            }
            assert!(make(fd.as_fd(), &device("/dev/null")).is_err(), "case {case}");
        }
    }

    #[test]
    fn the_hosts_null_is_verified() {
        host_null().unwrap();
        assert!(host_device(Path::new("/dev/zero"), libc::S_IFCHR, (1, 3)).is_err());
    }
}
