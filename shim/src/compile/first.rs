//! The first start of a big module: the guest runs while its code is made.
//!
//! Two workers are at work then. One makes functions when the guest calls them, for as long as it
//! runs or until all are made; the other compiles the whole module for the cache, with what is left of
//! the processors. What ends them: the guest's end the first, and the other as well if the guest was
//! killed; else the shim stays until the code is in the cache, since no later start would be faster
//! otherwise if every run is short.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::SealFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::process::Child;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use coracle_engine::abi::lazy::{MAX_ANSWER, READY};

use super::error::{failure, os};
use super::group::{Group, Share};
use super::worker::{self, Output};
use super::{CompileError, Job, Ready, check, explained, image, memory_file, seal, whole};
use crate::cache::{Slot, Turn};
use crate::guest::Code;

/// What goes on while a guest runs that was started before its code was complete.
#[derive(Debug)]
pub struct FirstStart {
    first: JoinHandle<()>,
    first_stop: Arc<Notify>,
    rest: Option<Rest>,
}

/// The compilation for the next start.
#[derive(Debug)]
struct Rest {
    work: JoinHandle<()>,
    stop: Arc<Notify>,
    /// Ends it while it only waits for somebody else's.
    idle: Arc<Notify>,
}

impl FirstStart {
    /// To be called when the guest has ended: what was only for it ends, and everything if it was
    /// killed.
    pub fn guest_ended(&self, killed: bool) {
        self.first_stop.notify_one();
        if let Some(rest) = &self.rest {
            if killed {
                rest.stop.notify_one();
            } else {
                rest.idle.notify_one();
            }
        }
    }

    /// Waits until nothing is left of what was only for the guest. What is for others becomes
    /// `afterwork`.
    pub async fn settled(self, afterwork: &Afterwork) {
        // Its own errors are in the log.
        let _ = self.first.await;
        if let Some(rest) = self.rest {
            afterwork.add(rest.work);
        }
    }
}

/// Work that the shim finishes before it exits, and that nobody waits for otherwise.
#[derive(Debug, Clone, Default)]
pub struct Afterwork(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Afterwork {
    /// Adds something that ends by itself.
    pub fn add(&self, work: JoinHandle<()>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|work| !work.is_finished());
        all.push(work);
    }

    /// Waits for all of it.
    pub async fn finish(&self) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for work in all {
            // It has told what went wrong.
            let _ = work.await;
        }
    }
}

/// Lets the guest start at once. Where that does not work, it waits for all of the code.
pub(super) async fn run(job: Job, stop: &Arc<Notify>) -> Result<Ready, CompileError> {
    let (code, child, group) = match begin(&job, stop).await {
        Ok(begun) => begun,
        // The module's own fault, or nobody wants it any more.
        Err(error @ (CompileError::Rejected { .. } | CompileError::Cancelled { .. })) => {
            return Err(error);
        }
        Err(error) => {
            tracing::warn!(%error, origin = %job.origin, "no start at once: compiling all of it");
            return whole(&job, stop).await;
        }
    };
    tracing::info!(origin = %job.origin, "starting at once, compiling meanwhile");
    let job = Arc::new(job);
    let first_stop = Arc::new(Notify::new());
    let first = tokio::spawn(attend(Arc::clone(&job), child, group, Arc::clone(&first_stop)));
    let rest = job.slot.clone().map(|slot| {
        let (stop, idle) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let work = fill(Arc::clone(&job), slot, Arc::clone(&stop), Arc::clone(&idle));
        Rest { work: tokio::spawn(work), stop, idle }
    });
    Ok(Ready { code, first: Some(FirstStart { first, first_stop, rest }) })
}

/// Starts the worker that makes functions one by one, and waits until its image can be mapped.
async fn begin(job: &Job, stop: &Notify) -> Result<(Code, Child, Group), CompileError> {
    let image = memory_file().map_err(os("make a memory file"))?;
    let (ours, theirs) = sockets().map_err(os("make a socket pair"))?;
    let group = Group::make(&job.group, &job.limits, Share::First)?;
    let mut child = match worker::spawn(job, &job.module, &image, &group, Output::First(theirs)) {
        Ok(child) => child,
        Err(error) => {
            group.remove().await;
            return Err(error);
        }
    };
    let result = tokio::select! {
        biased;
        () = stop.notified() => Err(CompileError::Cancelled { origin: job.origin.clone() }),
        () = tokio::time::sleep(job.limits.wall) => Err(CompileError::TooSlow {
            origin: job.origin.clone(),
            seconds: job.limits.wall.as_secs(),
        }),
        ready = ready(job, &mut child, ours) => ready,
    };
    match result.and_then(|socket| accept(job, image, socket)) {
        Ok(code) => Ok((code, child, group)),
        Err(error) => {
            end(&mut child).await;
            explained(Err(error), group.remove().await, job)
        }
    }
}

/// A pair that keeps messages apart; the compiler's end waits in its calls, and so will the guest's.
fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Waits for the worker's first word.
async fn ready(job: &Job, child: &mut Child, socket: OwnedFd) -> Result<OwnedFd, CompileError> {
    // Ends with the worker at the latest.
    let hear = move || {
        let mut word = vec![0; MAX_ANSWER];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&socket, &mut word))?;
        word.truncate(length);
        Ok((socket, word))
    };
    let heard =
        tokio::task::spawn_blocking(hear).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    let (socket, word) = heard.map_err(os("listen to the compiler"))?;
    match word[..] {
        [READY] => Ok(socket),
        _ => {
            let line = String::from_utf8_lossy(&word).into_owned();
            let status = child.wait().await.map_err(os("wait"))?;
            Err(failure(job.origin.clone(), status, &line, &job.limits))
        }
    }
}

/// Takes over the image: from now on nobody but the worker, through the mapping that it has, can
/// change it, and nobody its size.
fn accept(job: &Job, image: File, socket: OwnedFd) -> Result<Code, CompileError> {
    seal(&image, SealFlags::FUTURE_WRITE)?;
    let bad = |reason| CompileError::BadImage { origin: job.origin.clone(), reason };
    check(&image).map_err(bad)?;
    Ok(Code { image: image.into(), compiler: Some(socket) })
}

/// Sees to the worker's end: by itself or with its guest.
///
/// Nothing counts the seconds: on a busy node they pass without its getting a processor, and its end
/// would be that of a guest that did nothing wrong. The kernel counts what it uses (`RLIMIT_CPU`).
async fn attend(job: Arc<Job>, mut child: Child, group: Group, stop: Arc<Notify>) {
    let ended = tokio::select! {
        status = child.wait() => Some(status),
        () = stop.notified() => None,
    };
    match ended {
        None => end(&mut child).await,
        Some(Ok(status)) if status.success() => {}
        Some(Ok(status)) => {
            let error = failure(job.origin.clone(), status, "", &job.limits);
            tracing::warn!(%error, "first start: the compiler has ended");
        }
        Some(Err(error)) => {
            tracing::warn!(%error, "first start: the compiler cannot be waited for")
        }
    }
    if group.remove().await {
        let mib = job.limits.memory >> 20;
        tracing::warn!(origin = %job.origin, mib, "first start: the compiler had too little memory");
    }
}

/// Kills and reaps.
async fn end(child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "compiler not killed");
    }
}

/// Compiles the whole module for the next start, unless somebody else does.
async fn fill(job: Arc<Job>, slot: Slot, stop: Arc<Notify>, idle: Arc<Notify>) {
    let begun = Instant::now();
    let lock = tokio::select! {
        biased;
        () = stop.notified() => return,
        () = idle.notified() => return,
        turn = slot.turn(&job.origin, job.limits.wall) => match turn {
            Turn::Ours(lock) => lock,
            Turn::Done(_) => return,
        },
    };
    let image = match image(&job, &stop).await {
        Ok(image) => image,
        Err(CompileError::Cancelled { .. }) => return,
        Err(error) => {
            tracing::warn!(%error, "the next start will not find its code");
            return;
        }
    };
    if let Some((_, publication)) = slot.store(&image).await {
        // It has told what went wrong.
        let _ = publication.publish(lock).await;
        let milliseconds = begun.elapsed().as_millis() as u64;
        tracing::info!(origin = %job.origin, milliseconds, "code for the next start is kept");
    }
}
