//! Standard streams: the guest gets the FIFOs themselves, no thread copies.
//!
//! Nothing here waits for a client, and no client waits for ever:
//! * Output FIFOs are opened through a read-write descriptor, which needs no partner (`fifo(7)`),
//!   and the shim keeps a reader until the task is deleted. A guest therefore neither gets EPIPE
//!   while containerd restarts nor loses what it wrote before a client came to read.
//! * Standard input is opened non-blocking. Its reader would see a false end of file before the
//!   client has opened its side, so [`Stdin::client`] tells when it has; Start waits for that.
//!   The shim keeps no writer, so the end of input arrives when the client closes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::watch;

use crate::request::{StdioPlan, Stream};

/// A stream that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("open {name} {path}: {source}", path = path.display())]
pub struct StdioError {
    /// `stdin`, `stdout` or `stderr`.
    pub name: &'static str,
    /// The FIFO or file.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// The guest's ends, to be handed over and closed in the shim; `None` is `/dev/null`.
#[derive(Debug, Default)]
pub struct GuestEnds {
    /// Descriptor 0.
    pub stdin: Option<OwnedFd>,
    /// Descriptor 1.
    pub stdout: Option<OwnedFd>,
    /// Descriptor 2.
    pub stderr: Option<OwnedFd>,
}

/// What the shim keeps while the task exists.
#[derive(Debug)]
pub struct KeptEnds {
    /// Readers of the output FIFOs; never read from.
    _readers: Vec<File>,
    /// Standard input, when it is a FIFO.
    stdin: Option<Stdin>,
}

/// A FIFO for standard input whose client may not have come yet.
#[derive(Debug)]
struct Stdin {
    path: PathBuf,
    /// How long [`KeptEnds::client_ready`] waits.
    patience: Duration,
    /// Turns true when a writer has opened the FIFO.
    client: watch::Receiver<bool>,
    /// A writer of our own: makes up for a client that did not come in time (CloseIO drops it), or
    /// lets the waiting thread go, which holds the other reference until its open returns.
    stand_in: Arc<Mutex<Option<File>>>,
}

/// Opens the three streams. `patience` bounds the wait for a client of standard input.
///
/// # Errors
/// A path that does not exist or cannot be opened.
pub fn open(plan: &StdioPlan, patience: Duration) -> Result<(GuestEnds, KeptEnds), StdioError> {
    let mut readers = Vec::new();
    let (stdin, kept_stdin) = match &plan.stdin {
        Stream::Null => (None, None),
        Stream::Path(path) | Stream::LogFile(path) => {
            let (end, kept) = open_input(path, patience).map_err(at("stdin", path))?;
            (Some(end), kept)
        }
    };
    let mut output = |name, stream: &Stream| match stream {
        Stream::Null => Ok(None),
        Stream::Path(path) => open_output(path, &mut readers).map(Some).map_err(at(name, path)),
        Stream::LogFile(path) => open_log(path).map(Some).map_err(at(name, path)),
    };
    let stdout = output("stdout", &plan.stdout)?;
    let stderr = output("stderr", &plan.stderr)?;
    Ok((GuestEnds { stdin, stdout, stderr }, KeptEnds { _readers: readers, stdin: kept_stdin }))
}

fn at<'a>(name: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StdioError + 'a {
    move |source| StdioError { name, path: path.to_owned(), source }
}

fn open_input(path: &Path, patience: Duration) -> io::Result<(OwnedFd, Option<Stdin>)> {
    let file = open_reader(path)?;
    block_again(&file)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Ok((file.into(), None));
    }
    let (opened, client) = watch::channel(false);
    let stand_in = Arc::<Mutex<Option<File>>>::default();
    let (waiting, shared) = (path.to_owned(), Arc::clone(&stand_in));
    // A blocking open for reading returns exactly when a writer exists; there is no other way to
    // learn of one without taking its bytes. A thread of its own, since it may wait for long.
    std::thread::Builder::new().name("stdin-client".into()).spawn(move || {
        let _ = File::open(waiting);
        let _ = opened.send(true);
        drop(shared);
    })?;
    Ok((file.into(), Some(Stdin { path: path.to_owned(), patience, client, stand_in })))
}

fn open_output(path: &Path, readers: &mut Vec<File>) -> io::Result<OwnedFd> {
    if !std::fs::metadata(path)?.file_type().is_fifo() {
        return Ok(File::options().append(true).open(path)?.into());
    }
    // With both sides held for a moment, the two plain ends open at once.
    let _both = open_both(path)?;
    let writer = open_writer(path)?;
    block_again(&writer)?;
    readers.push(open_reader(path)?);
    Ok(writer.into())
}

fn open_log(path: &Path) -> io::Result<OwnedFd> {
    Ok(File::options().append(true).create(true).mode(0o640).open(path)?.into())
}

/// O_NONBLOCK was for the opening only; a guest expects its streams to block.
fn block_again(file: &File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}

impl KeptEnds {
    /// Resolves when the guest may begin to read: at once without a stdin FIFO, else when a client
    /// has opened it. A client that does not come in time is replaced by a writer of our own, so
    /// that the guest waits for input instead of seeing its end.
    pub async fn client_ready(&self) {
        let Some(stdin) = &self.stdin else { return };
        let mut client = stdin.client.clone();
        let come = client.wait_for(|opened| *opened);
        if tokio::time::timeout(stdin.patience, come).await.is_ok() {
            return;
        }
        tracing::warn!(stdin = %stdin.path.display(), "no client opened standard input");
        match open_writer(&stdin.path) {
            Ok(writer) => *stdin.stand_in() = Some(writer),
            Err(error) => tracing::warn!(%error, "standard input stays without a writer"),
        }
    }

    /// CloseIO: the end of standard input, as far as it is ours to give.
    pub fn close_stdin(&self) {
        if let Some(stdin) = &self.stdin {
            *stdin.stand_in() = None;
        }
    }
}

impl Stdin {
    fn stand_in(&self) -> MutexGuard<'_, Option<File>> {
        self.stand_in.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the waiting thread go. Whether it is before, in or behind its open, a writer that lives as
/// long as the thread's own reference cannot be missed.
impl Drop for Stdin {
    fn drop(&mut self) {
        if !*self.client.borrow() {
            *self.stand_in() = open_both(&self.path).ok();
        }
    }
}

/// Read-write never waits for a partner (`fifo(7)`).
fn open_both(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn open_writer(path: &Path) -> io::Result<File> {
    File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn open_reader(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests;
