//! Waiting for a guest's end: one pidfd, any number of waiters, one answer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use coracle_oci::digest::Digest;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;

use super::sys;
use super::trap::{self, Trap};

/// How a guest ended, and when the shim learned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitStatus {
    /// Exit code or signal.
    pub exit: Exit,
    /// What stopped its program, if it says so.
    pub trap: Option<Trap>,
    /// When the process was reaped.
    pub at: SystemTime,
}

/// The two ways for a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It left by itself with this code, 0 to 255.
    Code(u8),
    /// This signal killed it.
    Signal(i32),
    /// Somebody else reaped it, so the kernel no longer knows. The shim must not wait for `-1`.
    Lost,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Lost => write!(f, "exit status unknown"),
        }
    }
}

/// A child process that can be waited for by many and is reaped once.
#[derive(Debug)]
pub(crate) struct Child {
    pidfd: AsyncFd<OwnedFd>,
    status: OnceCell<WaitStatus>,
    /// The container, and the module that it runs.
    module: OnceLock<(String, Digest)>,
}

impl Child {
    /// Takes over a pidfd of a direct child. Must be called within the tokio runtime.
    pub(crate) fn new(pidfd: OwnedFd) -> std::io::Result<Self> {
        let pidfd = sys::watch(pidfd)?;
        Ok(Self { pidfd, status: OnceCell::new(), module: OnceLock::new() })
    }

    /// Says what it runs, for the log; the first word counts.
    pub(super) fn runs(&self, task: &str, digest: Digest) {
        let _ = self.module.set((task.to_owned(), digest));
    }

    /// Writes to the log that its program failed. What is no module fails for others to tell.
    pub(super) fn complain(&self, kind: &str, reason: &dyn std::fmt::Display) {
        if let Some((task, digest)) = self.module.get() {
            tracing::warn!(%task, %digest, %kind, %reason, "program failed");
        }
    }

    /// The pidfd, for signals.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        self.pidfd.get_ref()
    }

    /// The end, if it is already known.
    pub(crate) fn ended(&self) -> Option<WaitStatus> {
        self.status.get().copied()
    }

    /// Resolves when the child has ended; every call gives the same answer.
    pub(crate) async fn wait(self: Arc<Self>) -> WaitStatus {
        *self.status.get_or_init(|| self.reap()).await
    }

    async fn reap(&self) -> WaitStatus {
        loop {
            // An error here means that the runtime is shutting down; waitid then simply blocks.
            let options = match self.pidfd.readable().await {
                Ok(mut guard) => {
                    guard.clear_ready();
                    WaitIdOptions::EXITED | WaitIdOptions::NOHANG
                }
                Err(_) => WaitIdOptions::EXITED,
            };
            let wait =
                |options| rustix::process::waitid(WaitId::PidFd(self.pidfd().as_fd()), options);
            // What it leaves to be read goes when it is reaped.
            let exit = match wait(options | WaitIdOptions::NOWAIT) {
                Ok(None) | Err(Errno::INTR) => continue,
                Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Exit::Code((code & 0xff) as u8),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => continue,
                },
                Err(_) => Exit::Lost,
            };
            let trap = trap::read_word(self.pidfd().as_fd(), exit);
            if let Some(trap) = trap {
                self.complain("trap", &trap);
            }
            // It has ended: this neither waits nor fails.
            let _ = wait(WaitIdOptions::EXITED);
            return WaitStatus { exit, trap, at: SystemTime::now() };
        }
    }
}
