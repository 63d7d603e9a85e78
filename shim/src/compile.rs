//! One compilation: an unprivileged process that gets a module and gives a code image.
//!
//! `coracle compile-worker` takes all rights from itself before it reads: it ends up as nobody, without
//! files, network or capabilities, and with three descriptors (module, image, one line of error). From
//! here it gets hard limits and a cgroup of its own: it is a child of the shim and not of the pod. It is
//! killed when its task ends, when its time is up, and by the kernel when the shim dies. What it wrote
//! is inert data until [`Header::decode`] accepts it.

mod group;
mod worker;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use coracle_engine::image::{HEADER_SIZE, Header};

pub(crate) use group::remove_left_behind;
pub use group::worker_group;

use group::Group;

use crate::cache::{Slot, Turn};
use crate::config::CompileLimits;

/// The compiler's executable.
const COMPILER: &str = "coracle";
/// The longest error line taken from the worker, in bytes.
const ERROR_LINE: u64 = 4096;

/// Why there is no code image.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler's executable is not there.
    #[error(
        "cannot find the compiler {COMPILER}: put it beside the shim or into PATH, or set CORACLE_BIN"
    )]
    NoCompiler,
    /// A system call of the preparation failed.
    #[error("cannot {act} for the compiler: {source}")]
    Os {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The worker's cgroup cannot be had.
    #[error("cannot make a cgroup for the compiler: {0}")]
    Group(#[from] coracle_oci::CgroupError),
    /// It took more memory than it may.
    #[error(
        "cannot compile {origin}: it takes more than {mib} MiB of memory, the runtime option CompileMemoryMiB sets the limit"
    )]
    TooLarge {
        /// Where the module came from.
        origin: String,
        /// The limit.
        mib: u64,
    },
    /// The compiler said what is wrong with the module.
    #[error("cannot compile {origin}: {reason}")]
    Rejected {
        /// Where the module came from.
        origin: String,
        /// The compiler's sentence.
        reason: String,
    },
    /// The compiler ended without a word.
    #[error("cannot compile {origin}: the compiler {how}")]
    Broken {
        /// Where the module came from.
        origin: String,
        /// How it ended.
        how: String,
    },
    /// The compiler was killed, by the kernel for want of memory or by somebody else.
    #[error(
        "cannot compile {origin}: the compiler was killed, perhaps because the machine has no memory left"
    )]
    Killed {
        /// Where the module came from.
        origin: String,
    },
    /// The time was up.
    #[error(
        "cannot compile {origin}: not done after {seconds} s, the runtime option CompileTimeoutSeconds sets the limit"
    )]
    TooSlow {
        /// Where the module came from.
        origin: String,
        /// The limit in seconds.
        seconds: u64,
    },
    /// What came back is no code image.
    #[error("cannot use the code of {origin}: {reason}")]
    BadImage {
        /// Where the module came from.
        origin: String,
        /// What the check found.
        reason: String,
    },
    /// The task ended first.
    #[error("the task ended while {origin} was being compiled")]
    Cancelled {
        /// Where the module came from.
        origin: String,
    },
}

/// Code that is there or on its way. Dropping it lets a compilation run on; a [`Stop`] ends it.
#[derive(Debug)]
pub struct Compilation {
    work: Work,
    stop: Arc<Notify>,
}

#[derive(Debug)]
enum Work {
    Done(OwnedFd),
    UnderWay(JoinHandle<Result<OwnedFd, CompileError>>),
}

/// Ends a [`Compilation`], also while its result is awaited.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Notify>);

impl Stop {
    /// Kills the worker, now or as soon as there is one.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

/// What is compiled, and with what.
#[derive(Debug)]
pub struct Job {
    /// The module: a sealed memory file at its beginning.
    pub module: File,
    /// Where it came from, for messages.
    pub origin: String,
    /// The bounds.
    pub limits: CompileLimits,
    /// The compiler.
    pub compiler: PathBuf,
    /// Where the code belongs in the cache; `None` without one.
    pub slot: Option<Slot>,
    /// The worker's cgroup; see [`worker_group`].
    pub group: String,
}

impl Compilation {
    /// Starts the worker on the current runtime, whose thread must live as long as the worker: the
    /// kernel ties the worker's life to the thread that made it (`PR_SET_PDEATHSIG`).
    pub fn begin(job: Job) -> Self {
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        Self { work: Work::UnderWay(tokio::spawn(async move { run(&job, &stopped).await })), stop }
    }

    /// Code that was found, so that there is nothing to do.
    pub fn done(image: OwnedFd) -> Self {
        Self { work: Work::Done(image), stop: Arc::default() }
    }

    /// A handle that ends it.
    pub fn stopper(&self) -> Stop {
        Stop(Arc::clone(&self.stop))
    }

    /// The code image: a file of the cache, or a memory file that is sealed against any change.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub async fn image(self) -> Result<OwnedFd, CompileError> {
        let work = match self.work {
            Work::Done(image) => return Ok(image),
            Work::UnderWay(work) => work,
        };
        work.await.unwrap_or_else(|error| {
            Err(CompileError::Os { act: "wait", source: io::Error::other(error) })
        })
    }
}

/// Finds the compiler: beside the shim's real executable, in `PATH`, where the configuration says.
///
/// # Errors
/// [`CompileError::NoCompiler`].
pub fn find_compiler(configured: Option<&Path>) -> Result<PathBuf, CompileError> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|shim| shim.canonicalize().ok())
        .map(|shim| shim.with_file_name(COMPILER));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join(COMPILER)))
        .chain(configured.map(Path::to_owned))
        .find(|candidate| candidate.is_file())
        .ok_or(CompileError::NoCompiler)
}

/// Gets the code from whoever makes it first.
async fn run(job: &Job, stop: &Notify) -> Result<OwnedFd, CompileError> {
    let Some(slot) = &job.slot else { return Ok(compile(job, stop).await?.into()) };
    let turn = tokio::select! {
        biased;
        () = stop.notified() => return Err(CompileError::Cancelled { origin: job.origin.clone() }),
        turn = slot.turn(&job.origin, job.limits.wall) => turn,
    };
    let lock = match turn {
        Turn::Done(image) => return Ok(image.into()),
        Turn::Ours(lock) => lock,
    };
    let image = compile(job, stop).await?;
    match slot.store(&image).await {
        Some((stored, publication)) => {
            publication.publish(lock);
            Ok(stored.into())
        }
        None => Ok(image.into()),
    }
}

/// Compiles; once more if the worker was killed by somebody else.
async fn compile(job: &Job, stop: &Notify) -> Result<File, CompileError> {
    match attempt(job, stop).await {
        Err(CompileError::Killed { origin }) => {
            tracing::warn!(%origin, "compiler killed: trying once more");
            attempt(job, stop).await
        }
        result => result,
    }
}

/// One worker, in a cgroup of its own.
async fn attempt(job: &Job, stop: &Notify) -> Result<File, CompileError> {
    let group = Group::make(&job.group, &job.limits)?;
    let result = work(job, stop, &group).await;
    let starved = group.remove().await;
    match result {
        Err(CompileError::Killed { origin } | CompileError::Broken { origin, .. }) if starved => {
            Err(CompileError::TooLarge { origin, mib: job.limits.memory >> 20 })
        }
        other => other,
    }
}

async fn work(job: &Job, stop: &Notify, group: &Group) -> Result<File, CompileError> {
    let image = memory_file().map_err(os("make a memory file"))?;
    let mut child = worker::spawn(job, &image, group)?;
    let stderr = child.stderr.take();
    let outcome = tokio::select! {
        biased;
        () = stop.notified() => Err(CompileError::Cancelled { origin: job.origin.clone() }),
        () = tokio::time::sleep(job.limits.wall) => Err(CompileError::TooSlow {
            origin: job.origin.clone(),
            seconds: job.limits.wall.as_secs(),
        }),
        ended = finish(&mut child, stderr) => Ok(ended),
    };
    let (status, line) = match outcome {
        Ok(ended) => ended.map_err(os("wait"))?,
        Err(error) => {
            // Reaps it too, so no zombie stays.
            if let Err(error) = child.kill().await {
                tracing::warn!(%error, "compiler not killed");
            }
            return Err(error);
        }
    };
    if !status.success() {
        return Err(failure(job.origin.clone(), status, &line, &job.limits));
    }
    let image = accept(image, job.origin.clone())?;
    tracing::info!(origin = %job.origin, "compiled");
    Ok(image)
}

/// Waits for the worker's end and for its error line.
async fn finish(
    child: &mut Child,
    stderr: Option<ChildStderr>,
) -> io::Result<(ExitStatus, String)> {
    let mut line = Vec::new();
    if let Some(stderr) = stderr {
        let mut bounded = stderr.take(ERROR_LINE);
        bounded.read_to_end(&mut line).await?;
        // What is beyond the bound is thrown away, but must not stop the worker.
        tokio::io::copy(bounded.get_mut(), &mut tokio::io::sink()).await?;
    }
    Ok((child.wait().await?, String::from_utf8_lossy(&line).into_owned()))
}

fn failure(origin: String, status: ExitStatus, line: &str, limits: &CompileLimits) -> CompileError {
    let how = match status.signal() {
        Some(libc::SIGKILL) => return CompileError::Killed { origin },
        Some(libc::SIGXCPU) => "used up its processor time".to_owned(),
        Some(libc::SIGXFSZ) => format!("made more than {} MiB of code", limits.output >> 20),
        Some(libc::SIGABRT) => {
            format!("gave up, perhaps for want of memory beyond {} MiB", limits.memory >> 20)
        }
        Some(signal) => format!("was ended by signal {signal}"),
        None => {
            let reason = line.lines().map(str::trim).find(|line| !line.is_empty());
            match reason {
                Some(reason) => {
                    return CompileError::Rejected { origin, reason: reason.to_owned() };
                }
                None => format!("ended with exit code {}", status.code().unwrap_or_default()),
            }
        }
    };
    CompileError::Broken { origin, how }
}

/// Seals the image, then checks it: nothing can change what was checked.
fn accept(image: File, origin: String) -> Result<File, CompileError> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&image, seals)
        .map_err(|errno| CompileError::Os { act: "seal the code image", source: errno.into() })?;
    check(&image).map_err(|reason| CompileError::BadImage { origin, reason })?;
    Ok(image)
}

/// Whether the header is one this build made and its lengths fit the file.
fn check(image: &File) -> Result<(), String> {
    let length = image.metadata().map_err(|error| error.to_string())?.len();
    let mut page = vec![0; usize::try_from(length).map_or(HEADER_SIZE, |n| n.min(HEADER_SIZE))];
    image.read_exact_at(&mut page, 0).map_err(|error| error.to_string())?;
    Header::decode(&page, length).map(drop).map_err(|error| error.to_string())
}

fn memory_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(rustix::fs::memfd_create("code-image", flags)?.into())
}

fn os(act: &'static str) -> impl FnOnce(io::Error) -> CompileError {
    move |source| CompileError::Os { act, source }
}
