//! The shim's half of a guest's creation.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use coracle_oci::spec::Workload;
use rustix::fs::{Mode, OFlags};
use tracing::warn;

use super::cgroups::{Cgroup, Entry};
use super::channel::{self, Received, ShimEnd};
use super::hooks::{self, HookStage};
use super::namespaces::{self, Namespaces};
use super::plan::{FromGuest, MountWhat, Plan, ToGuest};
use super::state::{self, State};
use super::sys::{FIRST_SAFE_FD, Launch, Launched};
use super::wait::Child;
use super::{
    Guest, GuestError, Runner, SUBCOMMAND, SpawnRequest, Stdio, device_rules, foreign, mounts, sys,
    translate,
};

/// `argv[0]` of a guest process.
const PROGRAM_NAME: &CStr = c"containerd-shim-wasm-v1";

/// Creates the guest of `request` with this or another executable as runner.
pub(super) async fn spawn(
    request: SpawnRequest<'_>,
    runner: Option<&Path>,
) -> Result<Guest, GuestError> {
    let SpawnRequest { id, bundle, workload, stdio, runner: kind } = request;
    let namespaces = Namespaces::of(workload)?;
    let plan = translate::plan(id, bundle, workload, &kind, &namespaces)?;
    let cgroup = Cgroup::named(&workload.cgroup, id)?;
    let mut state = State::new(id, Some(&cgroup));
    // Written before there is anything to find, so that a shim killed at any moment leaves its trace.
    state.write(bundle)?;
    if let Err(error) = cgroup.make(&workload.cgroup.resources) {
        forget(bundle);
        return Err(error.into());
    }
    // In a user namespace no device node can be made, and those of mounts do not work.
    if kind == Runner::Linux
        && !namespaces.user
        && let Err(error) = device_rules::apply(&cgroup, &workload.device_rules)
    {
        return Err(give_up(error, bundle, &cgroup).await);
    }
    let (channel, launched) = match launch(id, stdio, &namespaces, &cgroup, runner).await {
        Ok(launched) => launched,
        Err(error) => return Err(give_up(error, bundle, &cgroup).await),
    };
    let pid = launched.pid;
    let child = match Child::new(launched.pidfd) {
        Ok(child) => Arc::new(child),
        Err(error) => {
            let error = GuestError::os("watch the guest process")(error);
            return Err(give_up(error, bundle, &cgroup).await);
        }
    };
    let mut guest = Guest {
        id: id.to_owned(),
        bundle: bundle.to_path_buf(),
        pid,
        child,
        channel: Some(channel),
        cgroup: Some(cgroup),
        hooks: translate::host_hooks(workload),
        wants_image: matches!(kind, Runner::Wasm { .. } | Runner::Toolbox),
        code: None,
        terminal: None,
    };
    state.pid = pid;
    if let Err(error) = guest.set_up(workload, &namespaces, plan, state).await {
        if let Err(second) = guest.cleanup().await {
            warn!(id, error = %second, "remove a guest whose creation failed");
        }
        return Err(error);
    }
    Ok(guest)
}

/// Takes back what exists before there is a [`Guest`].
async fn give_up(error: GuestError, bundle: &Path, cgroup: &Cgroup) -> GuestError {
    if let Err(second) = cgroup.destroy().await {
        warn!(error = %second, "remove the cgroup of a guest whose creation failed");
    }
    forget(bundle);
    error
}

/// Removes the state of a guest that will not be.
fn forget(bundle: &Path) {
    if let Err(error) = state::remove(bundle) {
        warn!(%error, "remove the state of a guest whose creation failed");
    }
}

impl Guest {
    /// Brings the fresh process to the point where it is parked.
    async fn set_up(
        &mut self,
        workload: &Workload,
        namespaces: &Namespaces,
        mut plan: Plan,
        mut state: State,
    ) -> Result<(), GuestError> {
        let born = state::start_time(self.pid);
        state.start_time = born.map_err(GuestError::os("look at the guest process"))?;
        state.write(&self.bundle)?;
        if namespaces.needs_mappings() {
            namespaces::write_mappings(self.pid, &workload.uid_mappings, &workload.gid_mappings)?;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.register(self.pid, &workload.cgroup.resources).await?;
        }
        if let Some(score) = workload.process.oom_score_adj {
            adjust_oom_score(self.pid, score)?;
        }
        plan.pid = self.pid;
        if let Some(cgroup) = &self.cgroup {
            plan.groups = if shows_groups(&plan) { cgroup.places() } else { Vec::new() };
            plan.memory = cgroup.inner().memory_files();
        }
        let hook_limit = plan.create_container.is_empty();
        let host_hooks = plan.host_hooks;
        let trees = foreign::open_all(&plan.files.mounts, workload)?;
        self.say_with(&ToGuest::Plan(Box::new(plan)), &trees).await?;
        if host_hooks {
            match self.next_soon("mounting its file systems").await? {
                FromGuest::HooksDue => {}
                other => return Err(unexpected(&other, "HooksDue")),
            }
            let state = self.hook_state("creating");
            let (early, late) = (&self.hooks.prestart, &self.hooks.create_runtime);
            hooks::run_until_failure(HookStage::Prestart, early, &state).await?;
            hooks::run_until_failure(HookStage::CreateRuntime, late, &state).await?;
            self.say(&ToGuest::Proceed).await;
        }
        let phase = "setting itself up";
        // Hooks have limits of their own.
        let message =
            if hook_limit { self.next_soon(phase).await? } else { self.next(phase).await? };
        match message {
            FromGuest::Ready => Ok(()),
            other => Err(unexpected(&other, "Ready")),
        }
    }

    /// Sends a message; that the guest has ended is left for the next answer, which says why.
    async fn say(&mut self, message: &ToGuest) {
        if let Some(channel) = self.channel.as_mut() {
            let _ = channel.send(message).await;
        }
    }

    /// Releases the process and sends its plan, with descriptors. That it has ended is left for the next
    /// answer, which says why.
    pub(super) async fn say_with(
        &mut self,
        plan: &ToGuest,
        fds: &[OwnedFd],
    ) -> Result<(), GuestError> {
        let Some(channel) = self.channel.as_mut() else { return Ok(()) };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let sent = match channel.release().await {
            Ok(()) => channel.send_with(plan, &fds).await,
            Err(error) => Err(error),
        };
        match sent {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(GuestError::os("send the container's plan to the guest process")(error))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the container has a mount that shows its cgroups.
fn shows_groups(plan: &Plan) -> bool {
    plan.files.mounts.iter().any(|mount| mount.what == MountWhat::Cgroup)
}

pub(super) fn unexpected(got: &FromGuest, due: &str) -> GuestError {
    GuestError::Protocol(format!("{got:?} where {due} was due"))
}

/// Creates the process. It waits on its channel before it does anything of its own.
pub(super) async fn launch(
    id: &str,
    stdio: Stdio,
    namespaces: &Namespaces,
    cgroup: &Cgroup,
    runner: Option<&Path>,
) -> Result<(ShimEnd, Launched), GuestError> {
    let prepare = GuestError::os("prepare the guest process");
    let files = Prepared::open(stdio, cgroup, runner).map_err(prepare)?;
    let (mut ours, theirs) = channel::pair().map_err(GuestError::os("make a socket pair"))?;
    let theirs = high(theirs).map_err(GuestError::os("make a socket pair"))?;
    let id = CString::new(id).unwrap_or_default();
    let command = CString::new(SUBCOMMAND).unwrap_or_default();
    let (born, walks) = match &files.entry {
        Entry::Born(dir) => (Some(dir.as_fd()), &[][..]),
        Entry::Walks(tasks) => (None, tasks.as_slice()),
    };
    let launch = Launch {
        new_namespaces: namespaces.new,
        joins: &namespaces.joins,
        intermediate: namespaces.intermediate,
        cgroup_v2: born,
        cgroup_v1: walks,
        stdio: files.stdio(),
        channel: theirs.as_fd(),
        peer: ours.as_fd(),
        executable: files.executable.as_fd(),
        arguments: &[PROGRAM_NAME, &command, &id],
        become_root: namespaces.needs_mappings(),
    };
    let result = launch.clone_and_exec();
    drop(theirs);
    match result {
        Ok(launched) => Ok((ours, launched)),
        // The intermediate process has said why on the channel.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => match ours.receive().await {
            Ok(Received::Early(failure)) => Err(GuestError::Refused(failure.to_string())),
            _ => Err(GuestError::os("create the container's process")(error)),
        },
        Err(error) => Err(GuestError::os("create the container's process")(error)),
    }
}

/// The descriptors that a child needs before it executes, all out of the way of its final ones.
struct Prepared {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    executable: OwnedFd,
    entry: Entry,
}

impl Prepared {
    fn open(stdio: Stdio, cgroup: &Cgroup, runner: Option<&Path>) -> io::Result<Self> {
        let entry = match cgroup.entry()? {
            Entry::Born(dir) => Entry::Born(high(dir)?),
            Entry::Walks(files) => {
                Entry::Walks(files.into_iter().map(high).collect::<io::Result<_>>()?)
            }
        };
        Ok(Self {
            stdin: stream(stdio.stdin)?,
            stdout: stream(stdio.stdout)?,
            stderr: stream(stdio.stderr)?,
            executable: high(executable(runner.unwrap_or(Path::new("/proc/self/exe")))?)?,
            entry,
        })
    }

    fn stdio(&self) -> [BorrowedFd<'_>; 3] {
        [self.stdin.as_fd(), self.stdout.as_fd(), self.stderr.as_fd()]
    }
}

fn stream(given: Option<OwnedFd>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    high(match given {
        Some(fd) => fd,
        None => rustix::fs::open("/dev/null", flags, Mode::empty())?,
    })
}

/// The executable behind a read-only mount of its own, so that no process of a container can ever
/// open it for writing through `/proc/PID/exe`. Where that mount cannot be made, as for a file that
/// an upgrade has just replaced, the file itself: the kernel refuses writes while it runs.
fn executable(path: &Path) -> io::Result<OwnedFd> {
    let readonly = || -> io::Result<OwnedFd> {
        let mount = mounts::tree(path, true, false)?;
        sys::mount_setattr(mount.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0, false)?;
        Ok(mount)
    };
    readonly()
        .or_else(|_| Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
}

/// Moves a descriptor above those that a child fills.
pub(super) fn high(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= FIRST_SAFE_FD {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, FIRST_SAFE_FD)?)
}

/// Sets the kernel's out-of-memory preference. Lowering it takes CAP_SYS_RESOURCE, which a nested
/// containerd may lack: then it stays as it is, with a warning.
pub(super) fn adjust_oom_score(pid: i32, score: i32) -> Result<(), GuestError> {
    match std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            warn!(pid, score, %error, "oom_score_adj stays as it is: no CAP_SYS_RESOURCE");
            Ok(())
        }
        result => result.map_err(GuestError::os(format!("set oom_score_adj to {score}"))),
    }
}
