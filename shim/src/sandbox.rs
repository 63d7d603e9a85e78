//! The sandbox of a pod, for a containerd that leaves pods to the shim (`sandboxer = "shim"`).
//!
//! ```text
//!   Created ──start──▶ Ready ──stop, end──▶ Stopped ──shutdown──▶ (the shim leaves)
//! ```
//!
//! It is what CRI's pause container is otherwise: the built-in sleeper, which holds the namespaces
//! that the pod's containers join by its pid. It is no task and has no events; its end is told by
//! WaitSandbox.

mod bundle;
mod config;
mod service;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use coracle_oci::cgroup::stats::Stats;
use coracle_oci::{SpecError, spec};
use tokio::sync::watch;

use crate::exit::ExitStatus;
use crate::guest::{Guest, GuestError, Runner, SpawnRequest, Stdio};
use crate::mounts::{MountError, RootfsMounts};
use crate::request::{RootfsMount, TaskId};
pub use bundle::PodFiles;
use config::PodSandboxConfig;
pub use service::services;

/// How long a sandbox that is stopped may take to end by itself. Its sleeper ends at once.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What a call on a sandbox can fail with.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Another one, or none.
    #[error("sandbox {0} is not known to this shim")]
    NotFound(TaskId),
    /// A shim has one at most.
    #[error("this shim already has the sandbox {0}")]
    AlreadyExists(TaskId),
    /// Not in this state.
    #[error("cannot {act} sandbox {id}: it is {status}")]
    Refused {
        /// The sandbox.
        id: TaskId,
        /// What was asked for.
        act: &'static str,
        /// What the sandbox is.
        status: &'static str,
    },
    /// A message that makes no sense, or asks for what is not there.
    #[error("{0}")]
    Request(String),
    /// The spec made for it.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Its root file system.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Its process.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Files in its bundle.
    #[error("write into the bundle {bundle}: {source}", bundle = bundle.display())]
    Bundle {
        /// The bundle's folder.
        bundle: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// What CreateSandbox says, checked.
#[derive(Debug)]
struct Request {
    id: TaskId,
    bundle: PathBuf,
    rootfs: Vec<RootfsMount>,
    netns: Option<PathBuf>,
    config: PodSandboxConfig,
}

/// The place of a shim's sandbox, which most shims leave empty.
#[derive(Debug, Default)]
pub struct Place(Mutex<Option<Arc<Sandbox>>>);

impl Place {
    /// The sandbox of this id.
    fn get(&self, id: &str) -> Result<Arc<Sandbox>, SandboxError> {
        let id = parse_id(id)?;
        let found = self.any().filter(|sandbox| sandbox.id == id);
        found.ok_or(SandboxError::NotFound(id))
    }

    /// The sandbox, if there is one.
    fn any(&self) -> Option<Arc<Sandbox>> {
        self.lock().clone()
    }

    /// Whether a sandbox keeps the shim, tasks or not.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.lock().is_some()
    }

    /// What the pod's containers share.
    #[must_use]
    pub fn files(&self) -> PodFiles {
        self.any().map(|sandbox| sandbox.files.clone()).unwrap_or_default()
    }

    fn create(&self, request: Request) -> Result<(), SandboxError> {
        let mut place = self.lock();
        if let Some(there) = &*place {
            return Err(SandboxError::AlreadyExists(there.id.clone()));
        }
        *place = Some(Arc::new(Sandbox::prepare(request)?));
        Ok(())
    }

    /// Ends the sandbox and removes what it made, for a shim that leaves.
    pub async fn clear(&self) {
        let sandbox = self.lock().take();
        if let Some(sandbox) = sandbox
            && let Err(error) = sandbox.remove().await
        {
            // `delete`, which containerd calls after the shim is gone, tries again.
            tracing::warn!(id = %sandbox.id, %error, "sandbox left behind");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Sandbox>>> {
        // Nothing panics while holding the lock, so poison carries no meaning.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One sandbox.
#[derive(Debug)]
struct Sandbox {
    id: TaskId,
    bundle: PathBuf,
    files: PodFiles,
    inner: tokio::sync::Mutex<Inner>,
    /// Set once, when it has ended.
    exit: watch::Sender<Option<ExitStatus>>,
    /// Set once, when it has started.
    started: Mutex<Option<Started>>,
}

/// What is known of a sandbox that runs or has run.
#[derive(Debug, Clone, Copy)]
struct Started {
    pid: u32,
    at: SystemTime,
}

/// What only one call at a time works with.
#[derive(Debug)]
struct Inner {
    mounts: RootfsMounts,
    guest: Option<Guest>,
}

impl Sandbox {
    fn prepare(request: Request) -> Result<Self, SandboxError> {
        let Request { id, bundle, rootfs, netns, config } = request;
        let written = bundle::write_spec(&bundle, id.as_str(), &config, netns.as_deref())
            .and_then(|()| PodFiles::write(&bundle, &config));
        let files =
            written.map_err(|source| SandboxError::Bundle { bundle: bundle.clone(), source })?;
        // What is wrong with the pod is said before anything runs.
        spec::load(&bundle)?;
        let rootfs = if rootfs.is_empty() { vec![bundle::empty_root()] } else { rootfs };
        let mounts = RootfsMounts::make(&bundle, &rootfs)?;
        Ok(Self {
            id,
            bundle,
            files,
            inner: tokio::sync::Mutex::new(Inner { mounts, guest: None }),
            exit: watch::Sender::new(None),
            started: Mutex::new(None),
        })
    }

    /// Makes the process that holds the namespaces.
    async fn start(self: &Arc<Self>) -> Result<Started, SandboxError> {
        let mut inner = self.inner.lock().await;
        if self.started().is_some() {
            return Err(SandboxError::Refused {
                id: self.id.clone(),
                act: "start",
                status: self.status(),
            });
        }
        let workload = spec::load(&self.bundle)?;
        let mut guest = Guest::spawn(SpawnRequest {
            id: self.id.as_str(),
            bundle: &self.bundle,
            workload: &workload,
            stdio: Stdio::default(),
            runner: Runner::Pause,
        })
        .await?;
        if let Err(error) = guest.start().await {
            if let Err(second) = guest.cleanup().await {
                tracing::warn!(id = %self.id, error = %second, "sandbox left behind");
            }
            return Err(error.into());
        }
        let started = Started { pid: guest.pid().unsigned_abs(), at: SystemTime::now() };
        let (end, sandbox) = (guest.wait(), Arc::clone(self));
        tokio::spawn(async move {
            let exit = end.await.into();
            sandbox.exit.send_replace(Some(exit));
        });
        inner.guest = Some(guest);
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
        Ok(started)
    }

    fn started(&self) -> Option<Started> {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, if it has.
    fn ended(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    fn status(&self) -> &'static str {
        match (self.started(), self.ended()) {
            (None, _) => "created",
            (Some(_), None) => "ready",
            (Some(_), Some(_)) => "stopped",
        }
    }

    /// Resolves when it has ended.
    async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(exit)) => *exit,
            // The sender lives as long as the sandbox.
            _ => ExitStatus::now(crate::exit::UNKNOWN),
        }
    }

    /// What its process uses; that of the pod's containers is theirs.
    async fn stats(&self) -> Result<Stats, SandboxError> {
        let inner = self.inner.lock().await;
        match inner.guest.as_ref().and_then(Guest::cgroup) {
            Some(group) => Ok(group.stats().map_err(GuestError::from)?),
            None => Err(SandboxError::Refused {
                id: self.id.clone(),
                act: "read the statistics of",
                status: self.status(),
            }),
        }
    }

    /// Ends it: by SIGTERM, and after `patience` by SIGKILL. One that is not running is stopped.
    async fn stop(&self, patience: Option<Duration>) -> Result<(), SandboxError> {
        let inner = self.inner.lock().await;
        let Some(guest) = inner.guest.as_ref() else {
            // It never ran: whoever waits for its end has seen it.
            self.exit.send_if_modified(|exit| {
                let fresh = exit.is_none();
                exit.get_or_insert(ExitStatus::now(0));
                fresh
            });
            return Ok(());
        };
        for (signal, patience) in
            [(libc::SIGTERM, patience.unwrap_or(STOP_PATIENCE)), (libc::SIGKILL, Duration::MAX)]
        {
            match guest.signal(signal, false) {
                Err(GuestError::State { .. }) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
            if tokio::time::timeout(patience, self.wait()).await.is_ok() {
                break;
            }
        }
        Ok(())
    }

    /// Removes everything that it made.
    async fn remove(&self) -> Result<(), SandboxError> {
        self.stop(Some(Duration::ZERO)).await?;
        let mut inner = self.inner.lock().await;
        if let Some(mut guest) = inner.guest.take() {
            guest.cleanup().await?;
        }
        Ok(inner.mounts.remove()?)
    }
}

fn parse_id(id: &str) -> Result<TaskId, SandboxError> {
    TaskId::parse(id).map_err(|error| SandboxError::Request(error.to_string()))
}

/// A bundle's folder, or the file of a network namespace.
fn absolute(what: &str, path: &str) -> Result<PathBuf, SandboxError> {
    crate::request::absolute(path).ok_or_else(|| {
        SandboxError::Request(format!("the {what} {path:?} is no absolute path without '..'"))
    })
}
