//! The mounts that Create hands in for the root file system, and their removal.
//!
//! They are made in the shim's own mount namespace on `bundle/rootfs`. What a lost shim leaves there
//! is removed by [`crate::guest::cleanup_bundle`].

mod identity;
mod mapped;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use identity::lasting_identity;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::request::RootfsMount;

/// The folder below the bundle that carries the root file system.
pub const ROOTFS: &str = "rootfs";
/// `mount(2)` copies at most one page of options, with its NUL.
const OPTIONS_LIMIT: usize = 4096 - 1;

/// A mount that cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The folder for the root file system.
    #[error("make folder {path}: {source}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel refused a mount.
    #[error("mount {kind} {origin} on {target}: {source}", target = target.display())]
    Mount {
        /// File system type.
        kind: String,
        /// Device or folder.
        origin: String,
        /// Where to.
        target: PathBuf,
        /// What the kernel said.
        source: Errno,
    },
    /// A mount whose ids are mapped.
    #[error(
        "mount {kind} {origin} on {target} with the ids of its options uidmap and gidmap: {source}",
        target = target.display()
    )]
    Mapped {
        /// File system type.
        kind: String,
        /// Device or folder.
        origin: String,
        /// Where to.
        target: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// An option that needs a device set up first, or with a value that is none.
    #[error(
        "mount {origin}: option {option:?} is not supported, use a snapshotter that needs none"
    )]
    Option {
        /// Device or folder.
        origin: String,
        /// The option.
        option: String,
    },
    /// More options than the kernel takes, even with shortened paths.
    #[error("mount {kind}: {length} bytes of options, {OPTIONS_LIMIT} is the kernel's limit")]
    TooLong {
        /// File system type.
        kind: String,
        /// What is left after shortening.
        length: usize,
    },
    /// The kernel refused an unmount.
    #[error("unmount {path}: {source}", path = path.display())]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// What the kernel said.
        source: Errno,
    },
}

/// The mounts made for one task; removing them is explicit, since it can fail.
#[derive(Debug)]
pub struct RootfsMounts {
    target: PathBuf,
    made: usize,
}

impl RootfsMounts {
    /// Makes all mounts on `bundle/rootfs`, or none.
    ///
    /// # Errors
    /// The first mount that fails; those before it are removed again.
    pub fn make(bundle: &Path, mounts: &[RootfsMount]) -> Result<Self, MountError> {
        let mut rootfs = Self { target: bundle.join(ROOTFS), made: 0 };
        if mounts.is_empty() {
            return Ok(rootfs);
        }
        make_folder(&rootfs.target)
            .map_err(|source| MountError::Folder { path: rootfs.target.clone(), source })?;
        for wanted in mounts {
            if let Err(error) = make_one(wanted, &rootfs.target) {
                // The first failure is what the user must read; a second one is only logged.
                if let Err(again) = rootfs.remove() {
                    tracing::warn!(error = %again, "mount left behind");
                }
                return Err(error);
            }
            rootfs.made += 1;
        }
        Ok(rootfs)
    }

    /// Removes the mounts, last one first. Idempotent.
    ///
    /// # Errors
    /// A mount point that the kernel does not let go.
    pub fn remove(&mut self) -> Result<(), MountError> {
        while self.made > 0 {
            unmount_top(&self.target)?;
            self.made -= 1;
        }
        Ok(())
    }
}

/// containerd has made it already, nearly always.
fn make_folder(path: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => std::fs::create_dir_all(path),
        made => made,
    }
}

/// Removes the topmost mount; false when there is none.
fn unmount_top(target: &Path) -> Result<bool, MountError> {
    let attempt = |flags| umount2(target, flags | MntFlags::UMOUNT_NOFOLLOW);
    let result = match attempt(MntFlags::empty()) {
        // Something still looks into it; detached, it goes when that ends.
        Err(Errno::EBUSY) => attempt(MntFlags::MNT_DETACH),
        other => other,
    };
    match result {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(false),
        Err(source) => Err(MountError::Unmount { path: target.to_owned(), source }),
    }
}

/// Options of one mount, sorted into what `mount(2)` wants.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MsFlags,
    propagation: MsFlags,
    data: String,
    ids: mapped::Ids,
}

fn make_one(wanted: &RootfsMount, target: &Path) -> Result<(), MountError> {
    let options = sort(wanted)?;
    if !options.ids.is_empty() {
        return make_mapped(wanted, &options, target);
    }
    if options.data.len() <= OPTIONS_LIMIT {
        return mount_with(wanted, &options, target);
    }
    let Some((base, short)) = shorten(&options.data) else {
        return Err(MountError::TooLong { kind: wanted.kind.clone(), length: options.data.len() });
    };
    if short.len() > OPTIONS_LIMIT {
        return Err(MountError::TooLong { kind: wanted.kind.clone(), length: short.len() });
    }
    mount_from(&base, wanted, &Options { data: short, ..options }, target)
}

/// A failed mount.
fn failed(wanted: &RootfsMount, target: &Path) -> impl Fn(Errno) -> MountError {
    |source| MountError::Mount {
        kind: wanted.kind.clone(),
        origin: wanted.source.clone(),
        target: target.to_owned(),
        source,
    }
}

fn mount_with(wanted: &RootfsMount, options: &Options, target: &Path) -> Result<(), MountError> {
    mount_plain(wanted, options, target).map_err(failed(wanted, target))?;
    set_propagation(options, target).map_err(failed(wanted, target))
}

/// Makes a mount with its flags.
fn mount_plain(wanted: &RootfsMount, options: &Options, target: &Path) -> nix::Result<()> {
    let data = Some(options.data.as_str()).filter(|data| !data.is_empty());
    mount(Some(wanted.source.as_str()), target, Some(wanted.kind.as_str()), options.flags, data)?;
    // A bind mount takes its other flags only when mounted again (mount(2), MS_BIND).
    let extra = options.flags - (MsFlags::MS_BIND | MsFlags::MS_REC);
    if options.flags.contains(MsFlags::MS_BIND) && !extra.is_empty() {
        return change(target, options.flags | MsFlags::MS_REMOUNT);
    }
    Ok(())
}

fn set_propagation(options: &Options, target: &Path) -> nix::Result<()> {
    if options.propagation.is_empty() { Ok(()) } else { change(target, options.propagation) }
}

/// Changes a fresh mount, or removes it: half a mount must not stay where the caller counts none.
fn change(target: &Path, flags: MsFlags) -> nix::Result<()> {
    let none = None::<&str>;
    mount(none, target, none, flags, none).inspect_err(|_| {
        let _ = unmount_top(target);
    })
}

fn make_mapped(wanted: &RootfsMount, options: &Options, target: &Path) -> Result<(), MountError> {
    mapped::make(wanted, options, target).map_err(|source| MountError::Mapped {
        kind: wanted.kind.clone(),
        origin: wanted.source.clone(),
        target: target.to_owned(),
        source,
    })?;
    set_propagation(options, target).map_err(failed(wanted, target))
}

/// Mounts with relative paths, from `base`. The working directory belongs to the whole process, so
/// a thread with one of its own does it.
fn mount_from(
    base: &Path,
    wanted: &RootfsMount,
    options: &Options,
    target: &Path,
) -> Result<(), MountError> {
    let failed = failed(wanted, target);
    let work = || {
        unshare(CloneFlags::CLONE_FS).and_then(|()| nix::unistd::chdir(base)).map_err(&failed)?;
        mount_with(wanted, options, target)
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or(Err(failed(Errno::EAGAIN)))
}

/// Options as in `mount(8)`: a flag to set, a flag to clear, or data.
fn sort(wanted: &RootfsMount) -> Result<Options, MountError> {
    let mut flags = MsFlags::empty();
    let mut propagation = MsFlags::empty();
    let mut data = Vec::new();
    let mut ids = mapped::Ids::default();
    let unknown = |option: &str| MountError::Option {
        origin: wanted.source.clone(),
        option: option.to_owned(),
    };
    for option in &wanted.options {
        match option.as_str() {
            "" | "defaults" => {}
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => flags -= MsFlags::MS_RDONLY,
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "remount" => flags |= MsFlags::MS_REMOUNT,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "suid" => flags -= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "dev" => flags -= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "exec" => flags -= MsFlags::MS_NOEXEC,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            "async" => flags -= MsFlags::MS_SYNCHRONOUS,
            "dirsync" => flags |= MsFlags::MS_DIRSYNC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "atime" => flags -= MsFlags::MS_NOATIME,
            "nodiratime" => flags |= MsFlags::MS_NODIRATIME,
            "diratime" => flags -= MsFlags::MS_NODIRATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "norelatime" => flags -= MsFlags::MS_RELATIME,
            "strictatime" => flags |= MsFlags::MS_STRICTATIME,
            "nostrictatime" => flags -= MsFlags::MS_STRICTATIME,
            "private" => propagation = MsFlags::MS_PRIVATE,
            "rprivate" => propagation = MsFlags::MS_PRIVATE | MsFlags::MS_REC,
            "slave" => propagation = MsFlags::MS_SLAVE,
            "rslave" => propagation = MsFlags::MS_SLAVE | MsFlags::MS_REC,
            "shared" => propagation = MsFlags::MS_SHARED,
            "rshared" => propagation = MsFlags::MS_SHARED | MsFlags::MS_REC,
            "unbindable" => propagation = MsFlags::MS_UNBINDABLE,
            "runbindable" => propagation = MsFlags::MS_UNBINDABLE | MsFlags::MS_REC,
            "loop" => return Err(unknown(option)),
            other if ids.take(other).ok_or_else(|| unknown(other))? => {}
            other => data.push(other),
        }
    }
    if wanted.kind == "bind" {
        flags |= MsFlags::MS_BIND;
    }
    Ok(Options { flags, propagation, data: data.join(","), ids })
}

/// Makes the lower folders of an overlay relative to the folder they share, which is what makes
/// images of many layers long. `None` when there is nothing to gain.
fn shorten(data: &str) -> Option<(PathBuf, String)> {
    const LOWER: &str = "lowerdir=";
    let lower = data.split(',').find_map(|option| option.strip_prefix(LOWER))?;
    let folders: Vec<&Path> = lower.split(':').map(Path::new).collect();
    let base = folders.iter().skip(1).try_fold(folders.first()?.parent()?, |base, folder| {
        base.ancestors().find(|ancestor| folder.starts_with(ancestor) && *folder != *ancestor)
    })?;
    let relative: Option<Vec<_>> = folders
        .iter()
        .map(|folder| folder.strip_prefix(base).ok().and_then(Path::to_str))
        .collect();
    let relative = relative?.join(":");
    let options: Vec<String> = data
        .split(',')
        .map(|option| match option.strip_prefix(LOWER) {
            Some(_) => format!("{LOWER}{relative}"),
            None => option.to_owned(),
        })
        .collect();
    Some((base.to_owned(), options.join(",")))
}

#[cfg(test)]
mod tests;
