//! A further process of a container that runs: the shim's half.
//!
//! It is made like the first one, by the same `clone3` and the same runner, with two differences: every
//! namespace is joined instead of made, the mount namespace too, and there is nothing to build. What the
//! container can make of its own files cannot lead the shim astray: its namespaces and its root are
//! opened by the pid of a process that is known to live, and paths are resolved below that root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use coracle_oci::spec::{Hooks, NamespaceKind, Workload};
use rustix::fs::{Mode, OFlags};

use super::cgroups::Cgroup;
use super::lifecycle::HostHooks;
use super::namespaces::Namespaces;
use super::plan::{FromGuest, Plan, ToGuest};
use super::spawn::{adjust_oom_score, high, launch, unexpected};
use super::sys::Join;
use super::wait::Child;
use super::{Guest, GuestError, Runner, Stdio, pty, sys, translate};

/// Kinds of namespaces that a process may not share with its container's first one.
const KINDS: [NamespaceKind; 8] = [
    NamespaceKind::User,
    NamespaceKind::Ipc,
    NamespaceKind::Uts,
    NamespaceKind::Network,
    NamespaceKind::Pid,
    NamespaceKind::Mount,
    NamespaceKind::Cgroup,
    NamespaceKind::Time,
];

/// The way into a container: its namespaces and its root.
#[derive(Debug)]
pub struct Entrance {
    pid: i32,
    namespaces: Namespaces,
    root: OwnedFd,
}

/// Everything that [`Guest::spawn_exec`] needs to make one more process of a container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its bundle folder.
    pub bundle: &'a Path,
    /// What the bundle says of the container, with the process to run in place of its first.
    pub workload: Workload,
    /// The standard streams; ignored with a terminal.
    pub stdio: Stdio,
    /// What the process becomes.
    pub runner: Runner,
    /// The container.
    pub entrance: Entrance,
    /// Its control group.
    pub cgroup: &'a coracle_oci::cgroup::Cgroup,
}

impl Entrance {
    /// Opens the namespaces and the root of the process `pid`, which is `child`'s.
    ///
    /// # Errors
    /// [`GuestError::State`] when it has ended.
    pub(crate) fn open(child: &Child, pid: u32) -> Result<Self, GuestError> {
        let ended = || GuestError::State { act: "execute in", state: "stopped" };
        let pid = pid.cast_signed();
        let opened = Self::open_all(pid);
        // It is reaped on this very thread. So if it still can be signalled, the number was its own all
        // the time; the files of one that only is not reaped yet cannot be opened.
        if child.ended().is_some() || sys::pidfd_send_signal(child.pidfd().as_fd(), 0).is_err() {
            return Err(ended());
        }
        opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ended(),
            _ if error.raw_os_error() == Some(libc::ESRCH) => ended(),
            _ => GuestError::os(format!("open the namespaces of process {pid}"))(error),
        })
    }

    fn open_all(pid: i32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())?;
        let mut namespaces = Namespaces::default();
        for kind in KINDS {
            let Some(file) = foreign(pid, kind)? else { continue };
            let takes_effect_on_children =
                matches!(kind, NamespaceKind::Pid | NamespaceKind::User | NamespaceKind::Time);
            namespaces.intermediate |= takes_effect_on_children;
            namespaces.user |= kind == NamespaceKind::User;
            namespaces.joins.push(Join { file, kind: kind.clone_flag() as libc::c_int });
        }
        let mount = NamespaceKind::Mount.clone_flag() as libc::c_int;
        if namespaces.joins.iter().any(|join| join.kind == mount) {
            return Ok(Self { pid, namespaces, root });
        }
        // Never so, since Create insists on one; but the program would run at the host's root.
        Err(io::Error::other("it is in the mount namespace of the shim"))
    }

    /// The container's root, in its mount namespace.
    ///
    /// # Errors
    /// When no more files can be open.
    pub fn root(&self) -> io::Result<OwnedFd> {
        self.root.try_clone()
    }
}

/// Opens a namespace of a process, if it is another one than the shim's.
fn foreign(pid: i32, kind: NamespaceKind) -> io::Result<Option<OwnedFd>> {
    let name = kind.proc_name();
    let own = match rustix::fs::stat(format!("/proc/self/ns/{name}")) {
        Ok(own) => own,
        // Nor does the kernel have such namespaces for others.
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(format!("/proc/{pid}/ns/{name}"), flags, Mode::empty())?;
    let its = rustix::fs::fstat(&file)?;
    if (its.st_dev, its.st_ino) == (own.st_dev, own.st_ino) {
        return Ok(None);
    }
    high(file).map(Some)
}

/// Creates the process of `request` with this or another executable as runner. It is parked then, in the
/// container's namespaces and cgroup.
pub(super) async fn spawn(
    request: ExecRequest<'_>,
    runner: Option<&Path>,
) -> Result<Guest, GuestError> {
    let ExecRequest { id, bundle, workload, mut stdio, runner: kind, entrance, cgroup } = request;
    let workload = only_process(workload);
    let Entrance { pid: first, namespaces, root } = entrance;
    let mut plan = translate::plan_beside(id, bundle, &workload, &kind, &namespaces)?;
    // Only groups of containers whose own program is for Linux have rules for devices.
    if is_runner(first, runner).map_err(GuestError::os("look at the container's first process"))? {
        plan.identity.rights.forbid_nodes();
    }
    let pty = match workload.process.terminal {
        true => Some(give_terminal(root.as_fd(), &workload, &mut stdio)?),
        false => None,
    };
    drop(root);
    let cgroup = Cgroup::of(cgroup);
    let memory = cgroup.inner().memory_files();
    let (channel, launched) = launch(id, stdio, &namespaces, &cgroup, runner).await?;
    let child = Child::new(launched.pidfd).map_err(GuestError::os("watch the new process"))?;
    let mut guest = Guest {
        id: id.to_owned(),
        bundle: bundle.to_path_buf(),
        pid: launched.pid,
        child: Arc::new(child),
        channel: Some(channel),
        // The container's: it is not removed with this process.
        cgroup: None,
        hooks: HostHooks::default(),
        wants_image: matches!(kind, Runner::Wasm { .. } | Runner::Toolbox),
        code: None,
        terminal: pty,
    };
    let score = workload.process.oom_score_adj.or_else(|| oom_score(first));
    let files = memory.filter(|_| guest.wants_image).map(open_both).transpose();
    let files = files.map_err(GuestError::os("look up the container's memory limit"));
    let ready = match files {
        Ok(files) => guest.take_place(plan, score, files.flatten()).await,
        Err(error) => Err(error),
    };
    match ready {
        Ok(()) => Ok(guest),
        Err(error) => {
            guest.kill_and_reap().await;
            Err(error)
        }
    }
}

/// Whether a process is a guest that the runner runs itself.
fn is_runner(pid: i32, runner: Option<&Path>) -> io::Result<bool> {
    let its = rustix::fs::stat(format!("/proc/{pid}/exe"))?;
    let own = rustix::fs::stat(runner.unwrap_or(Path::new("/proc/self/exe")))?;
    Ok((its.st_dev, its.st_ino) == (own.st_dev, own.st_ino))
}

/// What is left for a further process: neither mounts nor hooks nor anything else that is the container's.
fn only_process(workload: Workload) -> Workload {
    Workload {
        hostname: None,
        domainname: None,
        mounts: Vec::new(),
        devices: Vec::new(),
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        sysctl: Vec::new(),
        hooks: Hooks::default(),
        ..workload
    }
}

/// Makes a terminal, whose slave becomes the streams; gives its master.
fn give_terminal(
    root: BorrowedFd<'_>,
    workload: &Workload,
    stdio: &mut Stdio,
) -> Result<OwnedFd, GuestError> {
    let make = || -> io::Result<(OwnedFd, Stdio)> {
        let pty::Pty { master, slave } = pty::Pty::make(root, workload.process.console_size)?;
        let (stdin, stdout) = (slave.try_clone()?, slave.try_clone()?);
        let streams = Stdio { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(slave) };
        Ok((master, streams))
    };
    let (master, streams) = make().map_err(GuestError::os("make a terminal"))?;
    *stdio = streams;
    Ok(master)
}

/// The preference of the container's first process; the shim's own is not meant for programs.
fn oom_score(pid: i32) -> Option<i32> {
    std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?.trim().parse().ok()
}

/// Opens the files of the container's memory, which lie outside of its root; `None` where nothing
/// counts it.
fn open_both(paths: [std::path::PathBuf; 2]) -> io::Result<Option<[OwnedFd; 2]>> {
    let open = |path: &Path| std::fs::File::open(path).map(OwnedFd::from);
    let [limit, usage] = paths;
    match (open(&limit), open(&usage)) {
        (Ok(limit), Ok(usage)) => Ok(Some([limit, usage])),
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

impl Guest {
    /// Brings the fresh process to the point where it is parked.
    async fn take_place(
        &mut self,
        mut plan: Plan,
        score: Option<i32>,
        memory: Option<[OwnedFd; 2]>,
    ) -> Result<(), GuestError> {
        if let Some(score) = score {
            adjust_oom_score(self.pid, score)?;
        }
        plan.pid = self.pid;
        let plan = ToGuest::Plan(Box::new(plan));
        self.say_with(&plan, memory.as_ref().map_or(&[], |files| files.as_slice())).await?;
        match self.next_soon("entering the container").await? {
            FromGuest::Ready => Ok(()),
            other => Err(unexpected(&other, "Ready")),
        }
    }
}
