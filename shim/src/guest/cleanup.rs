//! Removing what a guest leaves behind: processes, cgroup, mounts, state file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags};

use super::state::{self, State};
use super::{GuestError, sys};

/// How long a killed process may take to be gone, in seconds.
const DEATH_LIMIT: i64 = 10;

/// How many mounts may be stacked on a rootfs before something is wrong.
const MOUNT_LIMIT: u32 = 128;

/// What [`cleanup_bundle`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remains {
    /// The pid of the guest, if the state file named one.
    pub pid: Option<u32>,
    /// Whether that guest was still running and was killed now.
    pub killed: bool,
}

/// Removes everything of the container `id` that its shim did not live to remove: the guest and all
/// processes of its cgroup, the cgroup, the mounts on `bundle/rootfs`, the state file. May be called
/// again, and when there is nothing left to do. Blocks.
///
/// # Errors
/// When the state file is unreadable or of another container, or when something resists. Each step
/// is tried even if an earlier one failed; the first failure is reported.
pub fn cleanup_bundle(bundle: &Path, id: &str) -> Result<Remains, GuestError> {
    let found = State::read(bundle);
    let (remains, emptied) = match &found {
        Ok(Some(state)) if state.id == id => remove_processes(state),
        Ok(Some(state)) => {
            let what = format!("the removal of {id} in the bundle of {}", state.id);
            let why = "is not its own; name the bundle of the container".to_owned();
            return Err(GuestError::Spec { what, why });
        }
        Ok(None) | Err(_) => (Remains::default(), Ok(())),
    };
    let unmounted = unmount_all(&bundle.join("rootfs"));
    found?;
    emptied?;
    unmounted?;
    state::remove(bundle)?;
    state::remove_draft(bundle)?;
    Ok(remains)
}

fn remove_processes(state: &State) -> (Remains, Result<(), GuestError>) {
    let pid = u32::try_from(state.pid).ok().filter(|pid| *pid != 0);
    let killed = kill_guest(state);
    let emptied = match state.cgroup() {
        // Its shim died before it knew the guest, which dies by itself then. The group may not have been
        // made, and be that of somebody else, for which Create would have been refused.
        Some(cgroup) if pid.is_none() => cgroup.remove_once_empty(),
        Some(cgroup) => cgroup.destroy_blocking(),
        None => Ok(()),
    };
    let emptied = emptied.map_err(GuestError::from);
    match killed {
        Ok(killed) => (Remains { pid, killed }, emptied),
        Err(error) => (Remains { pid, killed: false }, Err(error)),
    }
}

/// Kills the very process that the state names and waits until it is gone; false if it was already.
fn kill_guest(state: &State) -> Result<bool, GuestError> {
    let Some(pid) = Pid::from_raw(state.pid) else { return Ok(false) };
    let act = || GuestError::os(format!("kill the guest process {}", state.pid));
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(false),
        Err(error) => return Err(act()(error.into())),
    };
    // Compared after the pidfd was opened: if this is the guest, so is what the pidfd refers to.
    if state::start_time(state.pid).ok() != Some(state.start_time) {
        return Ok(false);
    }
    match sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(act()(error)),
        Ok(()) => {
            // In a paused group of cgroup v1 it ends only when it runs; a failure shows as a death
            // that does not come.
            if let Some(cgroup) = state.cgroup() {
                let _ = cgroup.inner().thaw();
            }
            let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
            let limit = Timespec { tv_sec: DEATH_LIMIT, tv_nsec: 0 };
            let ready =
                rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&limit)));
            match ready.map_err(io::Error::from).map_err(act())? {
                0 => Err(act()(io::ErrorKind::TimedOut.into())),
                _ => Ok(true),
            }
        }
    }
}

/// Unmounts everything that is stacked on `at`.
fn unmount_all(at: &Path) -> Result<(), GuestError> {
    for _ in 0..MOUNT_LIMIT {
        match rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // No mount point, or no such folder.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => {
                return Err(GuestError::os(format!("unmount {}", at.display()))(error.into()));
            }
        }
    }
    let source = io::Error::other(format!("more than {MOUNT_LIMIT} mounts are stacked there"));
    Err(GuestError::Os { act: format!("unmount {}", at.display()), source })
}

/// Kills without waiting, for handles that are dropped.
pub(super) fn kill(pidfd: BorrowedFd<'_>) {
    // An error means that it is gone.
    let _ = sys::pidfd_send_signal(pidfd, libc::SIGKILL);
}
