//! The container's file system view: the runner's part that works on mounts.
//!
//! Every mount is first built detached (`fsmount`, `open_tree`), given its attributes, and only then
//! attached to a descriptor that was resolved inside the root. So neither a symlink of the image nor
//! a rename during set-up can redirect a mount, and nothing is writable for a moment that should be
//! read-only. Needs Linux 5.12 (mount_setattr(2)).

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::plan::{Files, Group, Mount, MountWhat};
use super::runner::{Act, Failure};
use super::{copy_up, path, sys};

const MS_PRIVATE: u64 = libc::MS_PRIVATE;
const MS_SLAVE: u64 = libc::MS_SLAVE;
const MS_SHARED: u64 = libc::MS_SHARED;
const ATTR_RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// No attribute to set and none to clear.
const NOTHING: (u64, u64) = (0, 0);
/// Mounts of the host may still appear here, but none from here on the host.
const PROPAGATE_DOWN: MountPropagationFlags =
    MountPropagationFlags::DOWNSTREAM.union(MountPropagationFlags::REC);

/// A root file system being prepared; not yet the root of this process.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Cuts this mount namespace off from the host's and makes the rootfs a mount of its own.
    pub(super) fn prepare(files: &Files) -> Result<Self, Failure> {
        // A shared root is the one case in which mounts of the container are to reach the host.
        let shared = files.propagation & MS_SHARED != 0;
        if !shared {
            rustix::mount::mount_change(c"/", PROPAGATE_DOWN)
                .act("change the propagation of", "/")?;
        }
        own_mount(&files.rootfs, shared, files.nodes_work)
            .map(|fd| Self { fd })
            .act("mount the root file system from", files.rootfs.display())
    }

    /// The root as a descriptor, for resolution inside it.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes all mounts of the spec, in order.
    /// `groups` are the container's own, for a mount that shows them; `foreign` are the mounts that the
    /// shim has opened.
    pub(super) fn mount_all(
        &self,
        mounts: &[Mount],
        groups: &[Group],
        foreign: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let mut foreign = foreign.into_iter();
        for mount in mounts {
            let what = match &mount.what {
                MountWhat::Bind { source, .. } | MountWhat::Foreign { source, .. } => {
                    source.display().to_string()
                }
                MountWhat::New { kind, .. } => kind.clone(),
                MountWhat::Cgroup => "cgroup".to_owned(),
                MountWhat::Remount => "other options".to_owned(),
            };
            let done = self.mount(mount, groups, &mut foreign);
            done.act("mount", format_args!("{what} on {}", mount.destination.display()))?;
        }
        Ok(())
    }

    fn mount(
        &self,
        mount: &Mount,
        groups: &[Group],
        foreign: &mut impl Iterator<Item = OwnedFd>,
    ) -> io::Result<()> {
        let to = &mount.destination;
        match &mount.what {
            MountWhat::Bind { source, recursive } => {
                let made = tree(source, true, *recursive)?;
                change(made.as_fd(), mount)?;
                self.attach_at(made.as_fd(), to)
            }
            MountWhat::Foreign { .. } => {
                let made = foreign.next().ok_or(io::ErrorKind::UnexpectedEof)?;
                self.attach_at(made.as_fd(), to)
            }
            MountWhat::New { kind, source, options, copy_up } => {
                // What is copied into must not be read-only yet.
                let attributes = if *copy_up { 0 } else { mount.attributes.0 };
                let made = new_file_system(kind, source.as_deref(), options, attributes)?;
                let target = path::make_dir(self.fd(), to)?;
                if *copy_up {
                    copy_up::copy_tree(target.as_fd(), made.as_fd())?;
                    change(made.as_fd(), mount)?;
                } else {
                    change_beneath(made.as_fd(), mount)?;
                }
                attach(made.as_fd(), target.as_fd())
            }
            MountWhat::Cgroup => self.mount_cgroup(mount, groups),
            MountWhat::Remount => {
                let target = path::open_in(self.fd(), to, OFlags::PATH)?;
                change(target.as_fd(), mount)
            }
        }
    }

    /// Attaches a file or a folder, at what is made for it if there is nothing.
    fn attach_at(&self, made: BorrowedFd<'_>, to: &Path) -> io::Result<()> {
        let target = if path::kind(made)? == FileType::Directory {
            path::make_dir(self.fd(), to)?
        } else {
            path::make_file(self.fd(), to)?
        };
        attach(made, target.as_fd())
    }

    /// On v2 the container's own group; on v1 a tmpfs with one folder a hierarchy, each showing the
    /// container's own group there.
    fn mount_cgroup(&self, mount: &Mount, groups: &[Group]) -> io::Result<()> {
        let target = path::make_dir(self.fd(), &mount.destination)?;
        if let [only] = groups
            && only.unified
        {
            let shown = tree(&only.folder, true, false)?;
            change(shown.as_fd(), mount)?;
            return attach(shown.as_fd(), target.as_fd());
        }
        let made = new_file_system("tmpfs", Some("tmpfs"), &["mode=755".to_owned()], 0)?;
        let attributes = mount.attributes;
        // Attached first, since folders of a detached mount cannot be mounted on.
        attach(made.as_fd(), target.as_fd())?;
        for group in groups {
            let shown = tree(&group.folder, true, false)?;
            sys::mount_setattr(shown.as_fd(), attributes.0, attributes.1, 0, false)?;
            let folder = path::make_dir(made.as_fd(), Path::new(&group.name))?;
            attach(shown.as_fd(), folder.as_fd())?;
            // `cpu,cpuacct` is also found as `cpu` and as `cpuacct`.
            for alias in group.name.split(',').filter(|name| *name != group.name) {
                rustix::fs::symlinkat(&group.name, &made, alias)?;
            }
        }
        change(made.as_fd(), mount)
    }

    /// Hides paths: files behind `/dev/null`, folders behind an empty read-only tmpfs.
    pub(super) fn mask(&self, masked: &[PathBuf], null: BorrowedFd<'_>) -> Result<(), Failure> {
        let mut empty = None;
        for hidden in masked {
            self.mask_one(hidden, null, &mut empty).act("hide", hidden.display())?;
        }
        Ok(())
    }

    fn mask_one(
        &self,
        hidden: &Path,
        null: BorrowedFd<'_>,
        empty: &mut Option<OwnedFd>,
    ) -> io::Result<()> {
        let Some(target) = self.existing(hidden)? else { return Ok(()) };
        if path::kind(&target)? != FileType::Directory {
            return attach(clone_tree(null, false)?.as_fd(), target.as_fd());
        }
        // Only what is attached can be cloned before Linux 6.15, so the first one is no clone.
        match empty {
            Some(empty) => attach(clone_tree(empty.as_fd(), false)?.as_fd(), target.as_fd()),
            None => attach(empty.insert(empty_folder()?).as_fd(), target.as_fd()),
        }
    }

    /// Makes paths read-only, with everything mounted below them.
    pub(super) fn protect(&self, paths: &[PathBuf]) -> Result<(), Failure> {
        for protected in paths {
            self.protect_one(protected).act("make read-only", protected.display())?;
        }
        Ok(())
    }

    fn protect_one(&self, protected: &Path) -> io::Result<()> {
        let Some(target) = self.existing(protected)? else { return Ok(()) };
        let made = clone_tree(target.as_fd(), true)?;
        sys::mount_setattr(made.as_fd(), ATTR_RDONLY, 0, 0, true)?;
        attach(made.as_fd(), target.as_fd())
    }

    /// A path that need not exist, as a spec lists what some kernels have.
    fn existing(&self, at: &Path) -> io::Result<Option<OwnedFd>> {
        match path::open_in(self.fd(), at, OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOENT | Errno::NOTDIR)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes this the root of the process and lets go of the host's; see pivot_root(2), whose
    /// `pivot_root(".", ".")` stacks the old root on the new one, from where it is unmounted.
    pub(super) fn enter(self, files: &Files) -> Result<(), Failure> {
        self.pivot(files.propagation).act("change the root to", files.rootfs.display())
    }

    fn pivot(&self, propagation: u64) -> io::Result<()> {
        // Where mounts still reach the host, it would see its own disappear.
        let shared = propagation & MS_SHARED != 0;
        let old = shared.then(|| tree(Path::new("/"), false, false)).transpose()?;
        rustix::process::fchdir(&self.fd)?;
        rustix::process::pivot_root(".", ".")?;
        if let Some(old) = old {
            sys::mount_setattr(old.as_fd(), 0, 0, MS_SLAVE, true)?;
        }
        // The working directory is nowhere now; the caller enters the container's.
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        if propagation != 0 {
            let recursive = propagation & libc::MS_REC != 0;
            sys::mount_setattr(self.fd(), 0, 0, propagation & !libc::MS_REC, recursive)?;
        }
        Ok(())
    }
}

/// Makes the root of the entered container read-only; mounts below it keep what they have.
pub(super) fn freeze_root(root: BorrowedFd<'_>) -> Result<(), Failure> {
    sys::mount_setattr(root, ATTR_RDONLY, 0, 0, false).act("make read-only", "the root file system")
}

/// Applies the attributes and the propagation of `mount`.
pub(super) fn change(fd: BorrowedFd<'_>, mount: &Mount) -> io::Result<()> {
    if mount.attributes != NOTHING {
        sys::mount_setattr(fd, mount.attributes.0, mount.attributes.1, 0, false)?;
    }
    change_beneath(fd, mount)
}

/// The same for a mount that was made with its attributes.
fn change_beneath(fd: BorrowedFd<'_>, mount: &Mount) -> io::Result<()> {
    if mount.recursive != NOTHING {
        sys::mount_setattr(fd, mount.recursive.0, mount.recursive.1, 0, true)?;
    }
    if let Some((propagation, recursive)) = mount.propagation {
        sys::mount_setattr(fd, 0, 0, propagation, recursive)?;
    }
    Ok(())
}

/// Turns the folder `rootfs` into a private mount of its own, as pivot_root(2) wants it. Device nodes
/// that an image brings along do not work there: only those of the container's `/dev` do. `shared`
/// is whether mounts of this namespace still reach the host.
fn own_mount(rootfs: &Path, shared: bool, nodes_work: bool) -> io::Result<OwnedFd> {
    if shared {
        unshare_parent(rootfs)?;
    }
    let made = tree(rootfs, true, true)?;
    if path::kind(&made)? != FileType::Directory {
        return Err(Errno::NOTDIR.into());
    }
    let attributes = if nodes_work { 0 } else { libc::MOUNT_ATTR_NODEV };
    sys::mount_setattr(made.as_fd(), attributes, 0, MS_PRIVATE, true)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&made, c"", CWD, rootfs, flags)?;
    Ok(made)
}

/// Opens a path of the host as a mount, or clones it into a detached one.
pub(super) fn tree(at: &Path, clone: bool, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::OPEN_TREE_CLONE, clone);
    flags.set(OpenTreeFlags::AT_RECURSIVE, clone && recursive);
    Ok(rustix::mount::open_tree(CWD, at, flags)?)
}

/// Clones what a descriptor refers to into a detached mount. Before Linux 6.15 it must be no detached one itself.
pub(super) fn clone_tree(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(fd, c"", flags)?)
}

pub(super) fn attach(made: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(made, c"", target, c"", flags)?)
}

fn empty_folder() -> io::Result<OwnedFd> {
    let options = ["mode=555".to_owned(), "nr_inodes=1".to_owned()];
    new_file_system("tmpfs", Some("tmpfs"), &options, ATTR_RDONLY)
}

/// Creates a file system and a detached mount of it with these attributes; see fsopen(2).
fn new_file_system(
    kind: &str,
    source: Option<&str>,
    options: &[String],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let made = configure(context.as_fd(), source, options, attributes);
    made.map_err(|error| explain(context, error))
}

fn configure(
    context: BorrowedFd<'_>,
    source: Option<&str>,
    options: &[String],
    attributes: u64,
) -> rustix::io::Result<OwnedFd> {
    if let Some(source) = source {
        rustix::mount::fsconfig_set_string(context, "source", source)?;
    }
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(context, key, value)?,
            None => rustix::mount::fsconfig_set_flag(context, option.as_str())?,
        }
    }
    rustix::mount::fsconfig_create(context)?;
    let attributes = u32::try_from(attributes).map_err(|_| Errno::INVAL)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Adds what the kernel logged in the file system context, such as the name of a bad option.
fn explain(context: OwnedFd, error: Errno) -> io::Error {
    let plain = io::Error::from(error);
    let mut text = [0; 512];
    let Ok(length) = std::fs::File::from(context).read(&mut text) else { return plain };
    let said = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
    // Messages look like "e tmpfs: Bad value for 'size'".
    let said = said.trim().trim_start_matches(['e', 'w', 'i']).trim().to_owned();
    if said.is_empty() { plain } else { io::Error::new(plain.kind(), format!("{plain} ({said})")) }
}

/// Makes the mount on which `rootfs` lies private, since `pivot_root` refuses a shared parent and a
/// shared one would carry the container's root to the host.
fn unshare_parent(rootfs: &Path) -> io::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let rootfs = std::fs::canonicalize(rootfs)?;
    let parent = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|point| rootfs.starts_with(point))
        .max_by_key(|point| point.as_os_str().len());
    let parent = parent.unwrap_or_else(|| PathBuf::from("/"));
    let point = tree(&parent, false, false)?;
    sys::mount_setattr(point.as_fd(), 0, 0, MS_PRIVATE, false)
}

/// Decodes the `\040` notation of `/proc/self/mountinfo`; see proc(5).
pub(super) fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(u8::is_ascii_digit));
        match digits.and_then(|d| std::str::from_utf8(d).ok()).map(|d| u8::from_str_radix(d, 8)) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_escapes() {
        assert_eq!(unescape(r"/a\040b\134c"), PathBuf::from(r"/a b\c"));
        assert_eq!(unescape(r"/a\9"), PathBuf::from(r"/a\9"));
    }
}
