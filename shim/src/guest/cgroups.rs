//! The container's cgroup as the guest process needs it: made, entered, emptied, removed.
//!
//! What a cgroup looks like is known by [`coracle_oci::cgroup`]; processes and signals are handled
//! here.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use coracle_oci::CgroupError;
use coracle_oci::cgroup::{CgroupPath, Host, Unit, Version};
use coracle_oci::spec::{CgroupSpec, Resources};
use rustix::process::{Pid, PidfdFlags};

use super::plan::Group;
use super::{GuestError, namespaces, sys};
use crate::systemd;

/// How often the processes of a group are killed before it is given up. With the pauses this is five
/// seconds, which only a process stuck in the kernel outlives.
const KILL_ROUNDS: u32 = 500;

/// Pause between two rounds.
const KILL_PAUSE: Duration = Duration::from_millis(10);

/// A container's cgroup.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    inner: coracle_oci::cgroup::Cgroup,
}

/// How a new process gets into a cgroup.
#[derive(Debug)]
pub(super) enum Entry {
    /// It is born there; see CLONE_INTO_CGROUP in clone3(2).
    Born(OwnedFd),
    /// It writes `0` to each of these files.
    Walks(Vec<OwnedFd>),
}

impl Cgroup {
    /// The group that a spec asks for; it need not exist.
    pub(crate) fn named(spec: &CgroupSpec, id: &str) -> Result<Self, CgroupError> {
        let path = CgroupPath::parse(spec.path.as_deref(), id)?;
        let mut group = Self { inner: coracle_oci::cgroup::Cgroup::new(&Host::detect()?, &path) };
        // As under runc: a containerd without root, which was given no groups, names none.
        if spec.path.is_none() {
            group.do_without_root();
        }
        Ok(group)
    }

    /// In a user namespace, gives up the hierarchies in which it may not be made.
    pub(crate) fn do_without_root(&mut self) {
        if namespaces::in_user_namespace() {
            self.inner.keep_possible();
        }
    }

    /// Makes the group and sets its limits; on failure nothing is left.
    pub(crate) fn make(&self, limits: &Resources) -> Result<(), CgroupError> {
        self.inner.create()?;
        self.inner.apply(limits).inspect_err(|_| {
            // The first failure is the one to report.
            let _ = self.inner.remove();
        })
    }

    /// A group that exists.
    pub(super) fn of(inner: &coracle_oci::cgroup::Cgroup) -> Self {
        Self { inner: inner.clone() }
    }

    /// The group that another process has made, by version, folders and unit of systemd.
    pub(crate) fn reopen(version: Version, dirs: Vec<PathBuf>, unit: Option<Unit>) -> Self {
        Self { inner: coracle_oci::cgroup::Cgroup::from_dirs(version, dirs).with_unit(unit) }
    }

    /// Tells systemd, where the group is one of its own, of the process that is in it.
    pub(super) async fn register(&self, pid: i32, limits: &Resources) -> Result<(), GuestError> {
        if self.inner.unit().is_none() {
            return Ok(());
        }
        let (group, limits) = (self.inner.clone(), limits.clone());
        let done = tokio::task::spawn_blocking(move || systemd::start(&group, pid, &limits)).await;
        // It neither panics nor is it aborted, but a runtime that shuts down may refuse it.
        let refused = |_| GuestError::os("tell systemd")(io::ErrorKind::Interrupted.into());
        Ok(done.map_err(refused)??)
    }

    /// The group's files and values.
    pub(crate) fn inner(&self) -> &coracle_oci::cgroup::Cgroup {
        &self.inner
    }

    /// The group in each hierarchy. Paths of the host: what the guest looks up before its root changes.
    pub(super) fn places(&self) -> Vec<Group> {
        let unified = self.inner.version() == Version::V2;
        let named = self.inner.places().filter_map(|(mount, dir)| {
            let name = mount.file_name()?.to_str()?.to_owned();
            Some(Group { name, folder: dir.to_path_buf(), unified })
        });
        named.collect()
    }

    /// Opens what a new process needs to enter the group.
    pub(super) fn entry(&self) -> io::Result<Entry> {
        if let Some(dir) = self.inner.unified_dir() {
            return Ok(Entry::Born(OwnedFd::from(std::fs::File::open(dir)?)));
        }
        let open = |file: PathBuf| OpenOptions::new().write(true).open(file).map(OwnedFd::from);
        self.inner.join_files().into_iter().map(open).collect::<io::Result<_>>().map(Entry::Walks)
    }

    /// Whether it is no group at all: its processes stay where the shim is.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.inner.dirs().next().is_none()
    }

    /// Pids of all processes of the group.
    pub(super) fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        self.inner.procs()
    }

    /// Signals every process and says how many there were.
    pub(super) fn signal(&self, signal: i32) -> io::Result<usize> {
        if signal == libc::SIGKILL {
            return self.kill_all();
        }
        let pids = self.inner.procs().map_err(io::Error::other)?;
        let mut hit = 0;
        for pid in pids {
            hit += usize::from(signal_one(pid, signal)?);
        }
        Ok(hit)
    }

    /// Kills every process, also those that are born meanwhile.
    fn kill_all(&self) -> io::Result<usize> {
        let pids = || self.inner.procs().map_err(io::Error::other);
        if let Some(file) = self.inner.kill_file() {
            let count = pids()?.len();
            if std::fs::write(file, "1").is_ok() {
                return Ok(count);
            }
        }
        // A killed process has no child any more; who is seen only now was born before its parent was killed.
        let mut hit = BTreeSet::new();
        for _ in 0..KILL_ROUNDS {
            let seen = hit.len();
            for pid in pids()? {
                if !hit.contains(&pid) && signal_one(pid, libc::SIGKILL)? {
                    hit.insert(pid);
                }
            }
            if hit.len() == seen {
                break;
            }
        }
        Ok(hit.len())
    }

    /// Kills every process and removes the group; on a blocking thread, since both may take a moment.
    pub(crate) async fn destroy(&self) -> Result<(), CgroupError> {
        let group = self.clone();
        let done = tokio::task::spawn_blocking(move || group.destroy_blocking()).await;
        // The task neither panics nor is it aborted, but a runtime that shuts down may refuse it.
        done.unwrap_or_else(|_| self.destroy_blocking())
    }

    /// Like [`Cgroup::destroy`], on the calling thread.
    pub(crate) fn destroy_blocking(&self) -> Result<(), CgroupError> {
        for _ in 0..KILL_ROUNDS {
            if self.pids()?.is_empty() {
                break;
            }
            let at_once =
                self.inner.kill_file().is_some_and(|file| std::fs::write(file, "1").is_ok());
            if !at_once {
                // Whoever cannot be killed shows in the next round, and at last in the removal; so does
                // whoever was paused and cannot be let go.
                let _ = self.signal(libc::SIGKILL);
                let _ = self.inner.thaw();
            }
            std::thread::sleep(KILL_PAUSE);
        }
        if let Some(Err(error)) = self.inner.unit().map(systemd::stop) {
            // It goes without its processes, too, only later.
            tracing::warn!(%error, "unit of a removed cgroup");
        }
        self.inner.remove()
    }

    /// Removes the group as soon as nobody is in it, and kills nobody: whoever stays has been there before.
    /// Blocks.
    pub(super) fn remove_once_empty(&self) -> Result<(), CgroupError> {
        for _ in 0..KILL_ROUNDS {
            if self.pids()?.is_empty() {
                return self.inner.remove();
            }
            std::thread::sleep(KILL_PAUSE);
        }
        Ok(())
    }
}

/// Signals a process; false if it has ended.
fn signal_one(pid: u32, signal: i32) -> io::Result<bool> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
    match sys::pidfd_send_signal(pidfd.as_fd(), signal) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(error),
    }
}
