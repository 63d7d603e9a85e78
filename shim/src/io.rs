//! Standard streams: the guest gets the FIFOs themselves, no thread copies.
//!
//! Nothing here waits for a client, and no client waits for ever:
//! * Of output FIFOs the shim opens a reader first, which needs no partner (`fifo(7)`), and keeps it
//!   until the task is deleted. A guest therefore neither gets EPIPE
//!   while containerd restarts nor loses what it wrote before a client came to read.
//! * Standard input is opened without waiting for its client. A reader without a writer sees the end
//!   of file, so Start looks whether the client is there ([`KeptEnds::client_ready`]) and gives one
//!   that is late a moment. Clients open before they call Create; one that is not there by then has
//!   come and gone, as `ctr run < /dev/null` does, and the end of file is the truth. The shim keeps
//!   no writer, so input ends when the client closes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use crate::request::{StdioPlan, Stream};

/// How often a client that is late, or slow to read the last words, is looked at. The kernel tells
/// neither by an event.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

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
    readers: Vec<File>,
    /// Standard input, when it is a FIFO, until the guest starts.
    stdin: Mutex<Option<Stdin>>,
}

/// A FIFO for standard input whose client may not have come yet.
#[derive(Debug)]
struct Stdin {
    reader: File,
    /// Until when a client is waited for.
    deadline: Instant,
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
    let kept = KeptEnds { readers, stdin: Mutex::new(kept_stdin) };
    Ok((GuestEnds { stdin, stdout, stderr }, kept))
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
    let stdin = Stdin { reader: file.try_clone()?, deadline: Instant::now() + patience };
    Ok((file.into(), Some(stdin)))
}

fn open_output(path: &Path, readers: &mut Vec<File>) -> io::Result<OwnedFd> {
    if !std::fs::metadata(path)?.file_type().is_fifo() {
        return Ok(File::options().append(true).open(path)?.into());
    }
    // A reader opens at once without a writer, and a writer because there is a reader.
    readers.push(open_reader(path)?);
    Ok(File::options().write(true).open(path)?.into())
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
    /// Resolves when the guest may begin to read: at once when a client is connected, has left
    /// words behind, or was never announced; else after the rest of the patience.
    pub async fn client_ready(&self) {
        let stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Stdin { reader, deadline }) = stdin else { return };
        while !has_client(&reader) && Instant::now() < deadline {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl KeptEnds {
    /// Resolves when clients have taken all output, or after `patience`.
    ///
    /// containerd's client closes its side as soon as it hears of the exit, read or not; so the
    /// exit is told after the last words.
    pub async fn drained(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let full = |reader: &File| rustix::io::ioctl_fionread(reader).is_ok_and(|left| left > 0);
        while self.readers.iter().any(full) && Instant::now() < deadline {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Whether the FIFO has a writer or words of one, without taking any: `tee(2)` copies what is there,
/// and tells a silent writer (EAGAIN) from none (nothing).
fn has_client(reader: &File) -> bool {
    let Ok((_scratch, end)) = rustix::pipe::pipe() else { return true };
    match rustix::pipe::tee(reader, &end, 1, SpliceFlags::NONBLOCK) {
        Ok(copied) => copied > 0,
        Err(errno) => errno == Errno::AGAIN,
    }
}

fn open_reader(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests;
