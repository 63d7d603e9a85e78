//! Mounts that the shim opens for a guest: those whose files the guest's half could not reach or map
//! itself, because it is in a user namespace, or because the mount maps ids.
//!
//! The trees travel with the plan, finished but for their place; see `mounts`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use coracle_oci::spec::{self, IdMapping, NamespaceKind, Workload};
use rustix::fs::CWD;
use rustix::mount::MoveMountFlags;
use rustix::process::{WaitId, WaitIdOptions};

use super::namespaces::write_mappings;
use super::plan::{Mount, MountWhat};
use super::{GuestError, mounts, sys};

/// Opens the mounts that are [`MountWhat::Foreign`], in their order. `mounts` are those of the spec,
/// one for each that is planned.
pub(super) fn open_all(planned: &[Mount], workload: &Workload) -> Result<Vec<OwnedFd>, GuestError> {
    let mut ids = Ids::default();
    let both = planned.iter().zip(&workload.mounts);
    both.filter_map(|(mount, spec)| match &mount.what {
        MountWhat::Foreign { source, recursive } => {
            let mut tree = || -> io::Result<OwnedFd> {
                let made = mounts::tree(source, true, *recursive)?;
                if let Some(map) = &spec.id_map {
                    let namespace = ids.of(map, workload)?;
                    sys::map_ids(made.as_fd(), namespace.as_fd(), map.recursive)?;
                }
                mounts::change(made.as_fd(), mount)?;
                Ok(made)
            };
            let act = format!("mount {} on {}", source.display(), mount.destination.display());
            Some(tree().map_err(GuestError::os(act)))
        }
        _ => None,
    })
    .collect()
}

/// User namespaces for mounts.
#[derive(Default)]
struct Ids {
    last: Option<(Vec<IdMapping>, Vec<IdMapping>, OwnedFd)>,
}

impl Ids {
    /// A user namespace that maps like `map`: mostly the same one for all mounts of a container.
    fn of(&mut self, map: &spec::IdMap, workload: &Workload) -> io::Result<&OwnedFd> {
        let own = map.uids.is_empty();
        let joined = workload.namespace(NamespaceKind::User).and_then(|user| user.path.as_ref());
        let (uids, gids) = match own {
            true => (&workload.uid_mappings, &workload.gid_mappings),
            false => (&map.uids, &map.gids),
        };
        let known = self.last.take().filter(|(u, g, _)| (u, g) == (uids, gids));
        let made = match known {
            Some(known) => known,
            None => {
                let namespace = match joined {
                    Some(path) if own => File::open(path)?.into(),
                    _ => user_namespace(uids, gids)?,
                };
                (uids.clone(), gids.clone(), namespace)
            }
        };
        Ok(&self.last.insert(made).2)
    }
}

/// Clones what is mounted at a path, without what is mounted below it.
pub(crate) fn clone(at: &Path) -> io::Result<OwnedFd> {
    mounts::tree(at, true, false)
}

/// Maps the ids of a cloned mount.
pub(crate) fn map(mount: BorrowedFd<'_>, namespace: &OwnedFd) -> io::Result<()> {
    sys::map_ids(mount, namespace.as_fd(), false)
}

/// Mounts a clone at a path.
pub(crate) fn attach(mount: BorrowedFd<'_>, at: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, c"", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Makes a user namespace with these mappings, which lives as long as the descriptor; see
/// user_namespaces(7).
///
/// # Errors
/// `InvalidInput` without mappings; what the kernel says.
pub(crate) fn user_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> io::Result<OwnedFd> {
    if uids.is_empty() || gids.is_empty() {
        let why = "no ids to map: give the mount uidMappings and gidMappings";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    // A namespace is made with a process, and its mappings are written from outside.
    let holder = sys::kernel::hold_user_namespace()?;
    let made = write_mappings(holder.pid, uids, gids)
        .map_err(io::Error::other)
        .and_then(|()| File::open(format!("/proc/{}/ns/user", holder.pid)));
    sys::pidfd_send_signal(holder.pidfd.as_fd(), libc::SIGKILL)?;
    let id = WaitId::PidFd(holder.pidfd.as_fd());
    rustix::io::retry_on_intr(|| rustix::process::waitid(id.clone(), WaitIdOptions::EXITED))?;
    Ok(made?.into())
}
