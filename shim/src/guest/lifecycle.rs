//! [`Guest`]: the shim's handle on one container process.

use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_oci::digest::Digest;
use rustix::fs::{Mode, OFlags};
use tracing::warn;

use super::Code;
use super::channel::{Received, ShimEnd};
use super::hooks::{self, HookStage, HookState};
use super::plan::{FromGuest, Hook, ToGuest};
use super::wait::{Child, WaitStatus};
use super::{ExecRequest, GuestError, SpawnRequest, cgroups, cleanup, exec, spawn, state, sys};

/// How long a guest may take for one step of its set-up that runs no hook. Generous, since mounting
/// may wait for slow storage; it only keeps a stuck mount from blocking the shim for ever.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// How long a guest may take to write one line and end; its volume may be slow.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(2);

/// One container process, from its creation to its removal.
///
/// Dropping a guest kills it: whoever gives up half-way leaves no process behind. The cgroup stays
/// until [`Guest::cleanup`].
#[derive(Debug)]
pub struct Guest {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) pid: i32,
    pub(super) child: Arc<Child>,
    /// Present until the program runs.
    pub(super) channel: Option<ShimEnd>,
    pub(super) cgroup: Option<cgroups::Cgroup>,
    pub(super) hooks: HostHooks,
    pub(super) wants_image: bool,
    pub(super) code: Option<Code>,
    /// The master of its terminal, until somebody takes it.
    pub(super) terminal: Option<OwnedFd>,
}

/// The hooks that run in the shim's namespaces, with what they are told.
#[derive(Debug, Default)]
pub(super) struct HostHooks {
    pub(super) prestart: Vec<Hook>,
    pub(super) create_runtime: Vec<Hook>,
    pub(super) poststart: Vec<Hook>,
    pub(super) poststop: Vec<Hook>,
    pub(super) annotations: Vec<(String, String)>,
}

impl Guest {
    /// Creates the process and everything around it, and returns when it is parked: its pid is final
    /// and it is in the container's namespaces and cgroup.
    ///
    /// Must be called on the shim's main thread, within its tokio runtime: the kernel ties the
    /// guest's death signal to the calling thread.
    ///
    /// # Errors
    /// One sentence for the user; nothing is left behind then.
    pub async fn spawn(request: SpawnRequest<'_>) -> Result<Self, GuestError> {
        spawn::spawn(request, None).await
    }

    /// Like [`Guest::spawn`], with another executable than the running one as guest runner.
    ///
    /// # Errors
    /// As for [`Guest::spawn`].
    pub async fn spawn_with_runner(
        request: SpawnRequest<'_>,
        runner: &std::path::Path,
    ) -> Result<Self, GuestError> {
        spawn::spawn(request, Some(runner)).await
    }

    /// Creates a further process of a container that runs, and returns when it is parked. What it needs
    /// of the container goes with it when the container ends; it is never cleaned up.
    ///
    /// Must be called where [`Guest::spawn`] may be.
    ///
    /// # Errors
    /// One sentence for the user; nothing is left behind then.
    pub async fn spawn_exec(request: ExecRequest<'_>) -> Result<Self, GuestError> {
        exec::spawn(request, None).await
    }

    /// Like [`Guest::spawn_exec`], with another executable than the running one as guest runner.
    ///
    /// # Errors
    /// As for [`Guest::spawn_exec`].
    pub async fn spawn_exec_with_runner(
        request: ExecRequest<'_>,
        runner: &std::path::Path,
    ) -> Result<Self, GuestError> {
        exec::spawn(request, Some(runner)).await
    }

    /// The master of the terminal that was made with the process, the first time.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// The way in for a further process.
    ///
    /// # Errors
    /// [`GuestError::State`] when the guest has ended.
    pub fn entrance(&self) -> Result<exec::Entrance, GuestError> {
        exec::Entrance::open(&self.child, self.pid.unsigned_abs())
    }

    /// The pid in the shim's pid namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Says which module it runs, for the log.
    pub(crate) fn runs_module(&self, digest: Option<Digest>) {
        if let Some(digest) = digest {
            self.child.runs(&self.id, digest);
        }
    }

    /// A handle on the process for whoever has not the guest.
    pub(crate) fn child(&self) -> Arc<Child> {
        Arc::clone(&self.child)
    }

    /// Hands over the code that [`Guest::start`] will run. The guest gets the image read-only,
    /// however it is open here.
    ///
    /// # Errors
    /// [`GuestError::State`] when the program already runs; [`GuestError::Os`] when the image cannot
    /// be opened for reading.
    pub fn provide_code(&mut self, code: Code) -> Result<(), GuestError> {
        if self.channel.is_none() {
            return Err(GuestError::State { act: "give a code image to", state: "running" });
        }
        let image =
            read_only(code.image).map_err(GuestError::os("open the code image for reading"))?;
        self.code = Some(Code { image, compiler: code.compiler });
        Ok(())
    }

    /// Lets the program run: returns when it is linked and about to be entered, or with the reason
    /// why it cannot run. The poststart hooks have run then; their failures are warnings.
    ///
    /// # Errors
    /// A failed startContainer hook, refused rights, or the link error. The process has ended then.
    pub async fn start(&mut self) -> Result<(), GuestError> {
        if self.channel.is_none() {
            return Err(GuestError::State { act: "start", state: "running or stopped" });
        }
        if self.wants_image != self.code.is_some() {
            let state = if self.wants_image { "without a code image" } else { "no program" };
            return Err(GuestError::State { act: "start", state });
        }
        let result = self.let_go().await;
        self.channel = None;
        self.code = None;
        if let Err(error) = &result {
            self.child.complain("start", error);
            self.kill_and_reap().await;
            return result;
        }
        let state = self.hook_state("running");
        for failure in
            hooks::run_all_on_host(HookStage::Poststart, &self.hooks.poststart, &state).await
        {
            warn!(id = %self.id, error = %failure, "poststart hook");
        }
        Ok(())
    }

    /// Has the parked process tell Kubernetes why its program cannot run, and end. Who resists is killed by
    /// whoever cleans up.
    pub(crate) async fn give_up(&mut self, reason: &impl std::fmt::Display) {
        let Some(mut channel) = self.channel.take() else { return };
        self.child.complain("start", reason);
        // One that has ended needs no telling.
        if channel.send(&ToGuest::GiveUp(reason.to_string())).await.is_ok() {
            let _ = tokio::time::timeout(LAST_WORD_LIMIT, self.wait()).await;
        }
    }

    async fn let_go(&mut self) -> Result<(), GuestError> {
        if let Some(channel) = self.channel.as_mut() {
            let code = self.code.as_ref();
            let fds = code.into_iter().flat_map(|code| {
                [Some(code.image.as_fd()), code.compiler.as_ref().map(AsFd::as_fd)]
            });
            let fds: Vec<_> = fds.flatten().collect();
            if let Err(error) = channel.send_with(&ToGuest::Start, &fds).await {
                // A dead guest is reported with its exit code, below.
                warn!(id = %self.id, %error, "send start to the guest");
            }
        }
        // Hooks of the container have limits of their own, so none applies here.
        match self.next("starting its program").await? {
            FromGuest::Started => self.wait_for_silence().await,
            other => Err(GuestError::Protocol(format!("{other:?} where Started was due"))),
        }
    }

    /// Waits until the guest has closed its end, so that a guest which counts as started holds
    /// nothing of the shim any more. A Linux program has it closed by its execve(2), if that succeeds.
    async fn wait_for_silence(&mut self) -> Result<(), GuestError> {
        let Some(channel) = self.channel.as_mut() else { return Ok(()) };
        match channel.receive().await.map_err(GuestError::os("read from the guest process"))? {
            Received::Closed => Ok(()),
            Received::Message(FromGuest::Failed(sentence)) => Err(GuestError::Refused(sentence)),
            other => Err(GuestError::Protocol(format!("{other:?} after Started"))),
        }
    }

    /// The next message that is not a warning; failures become errors.
    pub(super) async fn next(&mut self, phase: &'static str) -> Result<FromGuest, GuestError> {
        let Some(channel) = self.channel.as_mut() else {
            return Err(GuestError::State { act: "listen to", state: "running" });
        };
        loop {
            let received = channel.receive().await;
            match received.map_err(GuestError::os("read from the guest process"))? {
                Received::Message(FromGuest::Warning(text)) => {
                    warn!(id = %self.id, pid = self.pid, "{text}");
                }
                Received::Message(FromGuest::Terminal) => self.terminal = channel.take_fd(),
                Received::Message(FromGuest::Failed(sentence)) => {
                    return Err(GuestError::Refused(sentence));
                }
                Received::Message(message) => return Ok(message),
                Received::Early(failure) => return Err(GuestError::Refused(failure.to_string())),
                Received::Closed => break,
            }
        }
        let status = self.wait().await.exit.to_string();
        Err(GuestError::Died { phase, status })
    }

    /// Like [`Guest::next`], but gives up after a fixed time.
    pub(super) async fn next_soon(&mut self, phase: &'static str) -> Result<FromGuest, GuestError> {
        match tokio::time::timeout(STEP_LIMIT, self.next(phase)).await {
            Ok(result) => result,
            Err(_) => Err(GuestError::Slow { phase, limit: STEP_LIMIT }),
        }
    }

    /// Sends any signal the kernel knows to the guest, or to every process of its cgroup if `all`.
    ///
    /// # Errors
    /// [`GuestError::State`] when the guest has ended, [`GuestError::Os`] for an unknown signal.
    pub fn signal(&self, signal: i32, all: bool) -> Result<(), GuestError> {
        let ended = || GuestError::State { act: "signal", state: "stopped" };
        if let (true, Some(cgroup)) = (all, &self.cgroup)
            && !cgroup.is_nowhere()
        {
            let hit = cgroup.signal(signal).map_err(GuestError::os("signal the cgroup"))?;
            return if hit > 0 { Ok(()) } else { Err(ended()) };
        }
        if self.child.ended().is_some() {
            return Err(ended());
        }
        match sys::pidfd_send_signal(self.child.pidfd().as_fd(), signal) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(ended()),
            Err(source) => {
                Err(GuestError::Os { act: format!("send signal {signal} to the guest"), source })
            }
        }
    }

    /// Resolves when the guest has ended; every call gives the same answer. The future is
    /// independent of this handle, so a task of its own may hold it.
    pub fn wait(&self) -> impl Future<Output = WaitStatus> + Send + 'static {
        Arc::clone(&self.child).wait()
    }

    /// The pids of the container, from its cgroup; just the guest's if it has none of its own.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>, GuestError> {
        match &self.cgroup {
            Some(cgroup) if !cgroup.is_nowhere() => Ok(cgroup.pids()?),
            _ if self.child.ended().is_some() => Ok(Vec::new()),
            _ => Ok(vec![self.pid.unsigned_abs()]),
        }
    }

    /// The cgroup, for statistics and limits; `None` if the spec names none.
    #[must_use]
    pub fn cgroup(&self) -> Option<&coracle_oci::cgroup::Cgroup> {
        self.cgroup.as_ref().map(cgroups::Cgroup::inner)
    }

    /// Kills what is left, removes cgroup and state file, runs the poststop hooks (whose failures
    /// are warnings). May be called again.
    ///
    /// # Errors
    /// When a process cannot be killed or the cgroup cannot be removed.
    pub async fn cleanup(&mut self) -> Result<(), GuestError> {
        self.kill_and_reap().await;
        self.channel = None;
        if let Some(cgroup) = &self.cgroup {
            cgroup.destroy().await?;
        }
        self.cgroup = None;
        state::remove(&self.bundle)?;
        let poststop = std::mem::take(&mut self.hooks.poststop);
        let state = self.hook_state("stopped");
        for failure in hooks::run_all_on_host(HookStage::Poststop, &poststop, &state).await {
            warn!(id = %self.id, error = %failure, "poststop hook");
        }
        Ok(())
    }

    /// Kills the process, if it lives, and waits for its end.
    pub(crate) async fn kill_and_reap(&self) {
        if self.child.ended().is_none() {
            // It may have ended by itself meanwhile, which is as good.
            let _ = sys::pidfd_send_signal(self.child.pidfd().as_fd(), libc::SIGKILL);
            self.wait().await;
        }
    }

    pub(super) fn hook_state(&self, status: &'static str) -> HookState {
        HookState {
            id: self.id.clone(),
            status,
            pid: if status == "stopped" { 0 } else { self.pid },
            bundle: self.bundle.clone(),
            annotations: self.hooks.annotations.clone(),
        }
    }
}

/// The same file without the right to write, which one from the cache does not have.
fn read_only(image: OwnedFd) -> std::io::Result<OwnedFd> {
    if rustix::fs::fcntl_getfl(&image)? & OFlags::RWMODE == OFlags::RDONLY {
        return Ok(image);
    }
    let path = format!("/proc/self/fd/{}", image.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.child.ended().is_none() {
            cleanup::kill(self.child.pidfd().as_fd());
        }
    }
}
