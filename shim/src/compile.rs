//! One compilation: an unprivileged process that gets a module and gives a code image.
//!
//! `coracle compile-worker` takes all rights from itself before it reads: it ends up as nobody, without
//! files, network or capabilities, and with three descriptors (module, image, one line of error). From
//! here it gets hard limits and a cgroup of its own: it is a child of the shim and not of the pod. It is
//! killed when its task ends, when its time is up, and by the kernel when the shim dies. What it wrote
//! is inert data until [`Header::decode`] accepts it.

mod error;
mod first;
mod group;
mod snapshot;
mod worker;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{MemfdFlags, SealFlags};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use coracle_engine::image::{HEADER_SIZE, Header};

pub use error::CompileError;
pub use first::{Afterwork, FirstStart};
pub(crate) use group::remove_left_behind;
pub use group::worker_group;

use error::{failure, os};
use group::{Group, Share};
use worker::Output;

use crate::cache::{Slot, Turn};
use crate::config::CompileLimits;
use crate::figures::{self, Happening};
use crate::guest::Code;

/// The compiler's executable.
const COMPILER: &str = "coracle";
/// The longest error line taken from the worker, in bytes.
const ERROR_LINE: u64 = 4096;

/// Code that is there or on its way. Dropping it lets a compilation run on; a [`Stop`] ends it.
#[derive(Debug)]
pub struct Compilation {
    work: Work,
    stop: Arc<Notify>,
}

#[derive(Debug)]
enum Work {
    Done(OwnedFd),
    UnderWay(JoinHandle<Result<Ready, CompileError>>),
}

/// What a guest can start with.
#[derive(Debug)]
pub struct Ready {
    /// For the guest.
    pub code: Code,
    /// What goes on while it runs, if its code is not complete.
    pub first: Option<FirstStart>,
}

impl From<OwnedFd> for Ready {
    fn from(image: OwnedFd) -> Self {
        Self { code: image.into(), first: None }
    }
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
    /// The export that initialises the program, if the module itself does not name it.
    pub initialize: Option<String>,
    /// Whether the guest starts before its code is complete.
    pub lazy: bool,
    /// What may go on when the guest is gone.
    pub afterwork: Afterwork,
}

impl Compilation {
    /// Starts the worker on the current runtime, whose thread must live as long as the worker: the
    /// kernel ties the worker's life to the thread that made it (`PR_SET_PDEATHSIG`).
    pub fn begin(job: Job) -> Self {
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let work = async move {
            if job.lazy { first::run(job, &stopped).await } else { whole(&job, &stopped).await }
        };
        Self { work: Work::UnderWay(tokio::spawn(work)), stop }
    }

    /// Code that was found, so that there is nothing to do.
    pub fn done(image: OwnedFd) -> Self {
        Self { work: Work::Done(image), stop: Arc::default() }
    }

    /// A handle that ends it.
    pub fn stopper(&self) -> Stop {
        Stop(Arc::clone(&self.stop))
    }

    /// The code: an image that is a file of the cache, or a memory file that nobody but its compiler
    /// can change.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub async fn ready(self) -> Result<Ready, CompileError> {
        let work = match self.work {
            Work::Done(image) => return Ok(image.into()),
            Work::UnderWay(work) => work,
        };
        work.await.unwrap_or_else(|error| {
            Err(CompileError::Os { act: "wait", source: io::Error::other(error) })
        })
    }
}

impl Compilation {
    /// Waits until nothing is left of one that was stopped.
    pub async fn given_up(self) {
        // Its own error says no more than that it was stopped.
        if let Ok(Ready { first: Some(first), code }) = self.ready().await {
            drop(code);
            first.guest_ended(true);
            let rest = Afterwork::default();
            first.settled(&rest).await;
            rest.finish().await;
        }
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

/// Gets all of the code from whoever makes it first, for a guest that waits for it.
async fn whole(job: &Job, stop: &Notify) -> Result<Ready, CompileError> {
    let Some(slot) = &job.slot else {
        return Ok(OwnedFd::from(image(job, stop).await?).into());
    };
    let turn = tokio::select! {
        biased;
        () = stop.notified() => return Err(CompileError::Cancelled { origin: job.origin.clone() }),
        turn = slot.turn(&job.origin, job.limits.wall) => turn,
    };
    let lock = match turn {
        Turn::Done(image) => return Ok(OwnedFd::from(image).into()),
        Turn::Ours(lock) => lock,
    };
    let image = image(job, stop).await?;
    match slot.store(&image).await {
        Some((stored, publication)) => {
            job.afterwork.add(publication.publish(lock));
            Ok(OwnedFd::from(stored).into())
        }
        None => Ok(OwnedFd::from(image).into()),
    }
}

/// Compiles, and initialises a program that is to be initialised.
async fn image(job: &Job, stop: &Notify) -> Result<File, CompileError> {
    let begun = Instant::now();
    let result = made(job, stop).await;
    match &result {
        Ok(_) => {
            figures::tell_later(Happening::Compiled { time: figures::micros(begun.elapsed()) })
        }
        Err(CompileError::Cancelled { .. }) => {}
        Err(_) => figures::tell_later(Happening::NotCompiled),
    }
    result
}

async fn made(job: &Job, stop: &Notify) -> Result<File, CompileError> {
    let image = attempt(job, stop, &job.module, || Output::Whole).await?;
    tracing::info!(origin = %job.origin, "compiled");
    snapshot::of(job, stop, image).await
}

/// Lets a worker make an image of what it reads, and another one if it was killed by somebody else.
async fn attempt(
    job: &Job,
    stop: &Notify,
    input: &File,
    output: impl Fn() -> Output,
) -> Result<File, CompileError> {
    match once(job, stop, input, output()).await {
        Err(CompileError::Killed { origin }) => {
            tracing::warn!(%origin, "compiler killed: trying once more");
            once(job, stop, input, output()).await
        }
        result => result,
    }
}

/// One worker, in a cgroup of its own.
async fn once(
    job: &Job,
    stop: &Notify,
    input: &File,
    output: Output,
) -> Result<File, CompileError> {
    let group = Group::make(&job.group, &job.limits, Share::Whole)?;
    let result = work(job, stop, &group, input, output).await;
    explained(result, group.remove().await, job)
}

/// A worker that was killed, or gave up, in a cgroup without memory had too little of it.
fn explained<T>(
    result: Result<T, CompileError>,
    starved: bool,
    job: &Job,
) -> Result<T, CompileError> {
    match result {
        Err(CompileError::Killed { origin } | CompileError::Broken { origin, .. }) if starved => {
            Err(CompileError::TooLarge { origin, mib: job.limits.memory >> 20 })
        }
        other => other,
    }
}

async fn work(
    job: &Job,
    stop: &Notify,
    group: &Group,
    input: &File,
    output: Output,
) -> Result<File, CompileError> {
    let image = memory_file().map_err(os("make a memory file"))?;
    let mut child = worker::spawn(job, input, &image, group, output)?;
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
    accept(image, job.origin.clone())
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

/// Seals the image, then checks it: nothing can change what was checked.
fn accept(image: File, origin: String) -> Result<File, CompileError> {
    seal(&image, SealFlags::WRITE)?;
    check(&image).map_err(|reason| CompileError::BadImage { origin, reason })?;
    Ok(image)
}

fn seal(image: &File, writing: SealFlags) -> Result<(), CompileError> {
    let seals = writing | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(image, seals)
        .map_err(|errno| CompileError::Os { act: "seal the code image", source: errno.into() })
}

/// The header, if it is one this build made and its lengths fit the file.
fn check(image: &File) -> Result<Header, String> {
    let length = image.metadata().map_err(|error| error.to_string())?.len();
    let mut page = vec![0; usize::try_from(length).map_or(HEADER_SIZE, |n| n.min(HEADER_SIZE))];
    image.read_exact_at(&mut page, 0).map_err(|error| error.to_string())?;
    Header::decode(&page, length).map_err(|error| error.to_string())
}

fn memory_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(rustix::fs::memfd_create("code-image", flags)?.into())
}
