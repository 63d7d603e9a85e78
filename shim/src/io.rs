//! Standard streams: the guest gets the FIFOs themselves, no thread copies. Only with a terminal there is
//! something to copy (`terminal`); a logging program is a process beside ([`logger`]).
//!
//! Nothing here waits for a client, and no client waits for ever:
//! * Of output FIFOs the shim opens a reader first, which needs no partner (`fifo(7)`), and keeps it
//!   until the task is deleted. A guest therefore neither gets EPIPE
//!   while containerd restarts nor loses what it wrote before a client came to read.
//! * Standard input is opened without waiting for its client. A reader without a writer sees the end
//!   of file, so Start looks whether the client is there ([`KeptEnds::release_input`]) and holds the end back
//!   for a moment if it is not. Clients open before they call Create; one that is not there soon after has
//!   come and gone, as `ctr run < /dev/null` does, and the end of file is the truth. The shim keeps
//!   no writer for longer, so input ends when the client closes.

pub mod logger;
mod terminal;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Gid, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use tokio::net::unix::pipe;

use logger::Logger;
use terminal::{Keyboard, Screen, Terminal};

use crate::request::{StdioPlan, Stream};

/// How often a client that is slow to read the last words is looked at. The kernel tells it by no event.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A stream that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("open {name} {path}: {source}", path = path.display())]
pub struct StdioError {
    /// `stdin`, `stdout`, `stderr`, `terminal` or `logger`.
    pub name: &'static str,
    /// The FIFO, file or program.
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

impl GuestEnds {
    /// Gives FIFOs and pipes to a user and group, so that root of a user namespace can open them by
    /// `/dev/stdout` and its like.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn given_to(self, (uid, gid): (u32, u32)) -> Result<Self, StdioError> {
        if (uid, gid) == (0, 0) {
            return Ok(self);
        }
        let names = [("stdin", &self.stdin), ("stdout", &self.stdout), ("stderr", &self.stderr)];
        for (name, fd) in names.into_iter().filter_map(|(name, fd)| Some((name, fd.as_ref()?))) {
            give(fd, uid, gid).map_err(|error| StdioError {
                name,
                path: PathBuf::from(format!("for user {uid} and group {gid}")),
                source: error.into(),
            })?;
        }
        Ok(self)
    }
}

/// Changes the owner of a FIFO or pipe, and of nothing else.
fn give(fd: &OwnedFd, uid: u32, gid: u32) -> rustix::io::Result<()> {
    if FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) != FileType::Fifo {
        return Ok(());
    }
    rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Whose streams they are, for loggers.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The container, or the further process in it.
    pub container: &'a str,
    /// containerd's namespace.
    pub namespace: &'a str,
}

/// What the shim keeps while a process is known.
#[derive(Debug)]
pub struct KeptEnds {
    /// Readers of the output FIFOs; never read from.
    readers: Vec<File>,
    /// Standard input, when it is a FIFO, until the guest begins.
    stdin: Mutex<Option<Stdin>>,
    /// What its terminal will be connected to.
    desk: Mutex<Option<Desk>>,
    terminal: OnceLock<Terminal>,
    logger: Mutex<Option<Logger>>,
}

/// A client's place at a terminal that does not exist yet.
#[derive(Debug)]
struct Desk {
    screen: Screen,
    keyboard: Option<Keyboard>,
}

/// A FIFO for standard input whose client may not have come yet.
#[derive(Debug)]
struct Stdin {
    reader: File,
    /// Until when a client may be late.
    deadline: Instant,
}

/// Opens the three streams, and starts their logger if there is one. `patience` is how long a client of
/// standard input may be late. With a terminal the guest has no end of them: see [`KeptEnds::connect`].
///
/// # Errors
/// A path that does not exist or cannot be opened, a logger that does not run.
pub async fn open(
    plan: &StdioPlan,
    owner: Owner<'_>,
    patience: Duration,
) -> Result<(GuestEnds, KeptEnds), StdioError> {
    let mut readers = Vec::new();
    let (mut ends, logger) = match &plan.stdout {
        Stream::Logger(wanted) => {
            let (logger, outputs) = Logger::start(wanted, owner).await?;
            let (stdout, stderr) = (Some(outputs.stdout), Some(outputs.stderr));
            (GuestEnds { stdin: None, stdout, stderr }, Some(logger))
        }
        _ => (outputs(plan, &mut readers)?, None),
    };
    let (mut kept_stdin, mut desk) = (None, None);
    if plan.terminal {
        desk = Some(Desk { screen: screen(ends.stdout.take())?, keyboard: keyboard(&plan.stdin)? });
        ends = GuestEnds::default();
    } else if let Stream::Path(path) = &plan.stdin {
        let (end, kept) = open_input(path, patience).map_err(at("stdin", path))?;
        (ends.stdin, kept_stdin) = (Some(end), kept);
    }
    let kept = KeptEnds {
        readers,
        stdin: Mutex::new(kept_stdin),
        desk: Mutex::new(desk),
        terminal: OnceLock::new(),
        logger: Mutex::new(logger),
    };
    Ok((ends, kept))
}

/// Outputs without a logger.
fn outputs(plan: &StdioPlan, readers: &mut Vec<File>) -> Result<GuestEnds, StdioError> {
    let mut output = |name, stream: &Stream| match stream {
        Stream::Null | Stream::Logger(_) => Ok(None),
        Stream::Path(path) => open_output(path, readers).map(Some).map_err(at(name, path)),
        Stream::LogFile(path) => open_log(path).map(Some).map_err(at(name, path)),
    };
    let stdout = output("stdout", &plan.stdout)?;
    // A terminal has one output.
    let stderr = if plan.terminal { None } else { output("stderr", &plan.stderr)? };
    Ok(GuestEnds { stdin: None, stdout, stderr })
}

/// Where a terminal shows what is written: what would be the guest's standard output.
fn screen(output: Option<OwnedFd>) -> Result<Screen, StdioError> {
    let Some(output) = output else { return Ok(Screen::Null) };
    let sort = |output: OwnedFd| {
        let file = File::from(output);
        if !file.metadata()?.file_type().is_fifo() {
            return Ok(Screen::File(file));
        }
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
        Ok(Screen::Pipe(pipe::Sender::from_file(file)?))
    };
    sort(output).map_err(at("stdout", Path::new("of the terminal")))
}

/// Where its input comes from, if from anywhere.
fn keyboard(stdin: &Stream) -> Result<Option<Keyboard>, StdioError> {
    let Stream::Path(path) = stdin else { return Ok(None) };
    let open = || {
        let reader = pipe::OpenOptions::new().open_receiver(path)?;
        let writer = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Keyboard { reader, writer: writer.into() })
    };
    open().map(Some).map_err(at("stdin", path))
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
    /// The guest is about to begin: from here on it sees the end of standard input when the client closes. If none
    /// is connected and none has left words behind, one may still come for the rest of the patience, and the end
    /// is held back until then. Must be called in the runtime.
    pub fn release_input(&self) {
        let stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Stdin { reader, deadline }) = stdin else { return };
        if has_client(&reader) || Instant::now() >= deadline {
            return;
        }
        // Without a writer of ours the guest would see the end too early.
        let Ok(writer) = open_writer(&reader) else { return };
        tokio::spawn(async move {
            tokio::time::sleep_until(deadline.into()).await;
            drop(writer);
        });
    }
}

impl KeptEnds {
    /// Connects the client to the terminal whose master this is, if the streams are for one.
    ///
    /// # Errors
    /// What the kernel says of the master.
    pub fn connect(&self, master: OwnedFd) -> Result<(), StdioError> {
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Desk { screen, keyboard }) = desk else { return Ok(()) };
        let terminal = Terminal::begin(master, screen, keyboard);
        let terminal = terminal.map_err(at("terminal", Path::new("of the process")))?;
        // There is one desk, so there is one terminal.
        let _ = self.terminal.set(terminal);
        Ok(())
    }

    /// Sets columns and rows of the terminal; without one there is nothing to do.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn resize(&self, size: (u16, u16)) -> io::Result<()> {
        self.terminal.get().map_or(Ok(()), |terminal| terminal.resize(size))
    }

    /// Ends standard input, where the shim holds it: that of a terminal. A guest that reads the client's
    /// FIFO itself sees the end when the client closes.
    pub fn close_input(&self) {
        if let Some(terminal) = self.terminal.get() {
            terminal.close_input();
        }
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = desk.as_mut() {
            desk.keyboard = None;
        }
    }

    /// Waits for the logger to read to the end, and ends it. The process must be gone.
    pub async fn close(&self) {
        let logger = self.logger.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(logger) = logger {
            logger.finished().await;
        }
    }

    /// The process has ended: resolves when clients have taken all output, or after `patience`.
    ///
    /// containerd's client closes its side as soon as it hears of the exit, read or not; so the
    /// exit is told after the last words.
    pub async fn drained(&self, patience: Duration) {
        if let Some(terminal) = self.terminal.get() {
            terminal.finished(patience).await;
        }
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

/// Another end of the FIFO. Opens at once, because there is a reader.
fn open_writer(reader: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn open_reader(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests;
