//! The shim's side of a terminal: what programs write on it goes to the client, what the client writes is
//! typed on it. Two tasks of the event loop, no thread, and nothing to do while nobody writes.
//!
//! The shim keeps a slave open while the process lives: the master would otherwise report the end as soon
//! as no program has the terminal open, although one may open it again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::SpecialCodeIndex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::guest::pty;

/// What is copied at once, in bytes; a terminal hands out no more than this (`N_TTY_BUF_SIZE`).
const PIECE: usize = 4096;

/// Where a terminal's output goes.
#[derive(Debug)]
pub(super) enum Screen {
    /// Nowhere.
    Null,
    /// A FIFO, or a logger's pipe.
    Pipe(pipe::Sender),
    /// A file.
    File(File),
}

/// Where its input comes from.
#[derive(Debug)]
pub(super) struct Keyboard {
    /// The client's FIFO.
    pub(super) reader: pipe::Receiver,
    /// Keeps the FIFO open when a client goes, since another one may come; closed by CloseIO.
    pub(super) writer: OwnedFd,
}

/// A terminal in use.
#[derive(Debug)]
pub(super) struct Terminal {
    master: Arc<pipe::Receiver>,
    /// The process has ended: what is written by now is all.
    ended: Arc<Notify>,
    /// Bytes that the client has taken.
    shown: Arc<AtomicU64>,
    output: Mutex<Option<JoinHandle<()>>>,
    input: Option<JoinHandle<()>>,
    keyboard: Mutex<Option<OwnedFd>>,
}

impl Terminal {
    /// Begins to copy. `master` is the terminal's.
    pub(super) fn begin(
        master: OwnedFd,
        screen: Screen,
        keyboard: Option<Keyboard>,
    ) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&master)?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        let typing = pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?;
        // A master is read and written like a pipe.
        let master = Arc::new(pipe::Receiver::from_owned_fd_unchecked(master)?);
        let (ended, shown) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
        let output = Output {
            master: Arc::clone(&master),
            slave: Some(slave),
            screen,
            ended: Arc::clone(&ended),
            shown: Arc::clone(&shown),
        };
        let (input, writer) = match keyboard {
            Some(Keyboard { reader, writer }) => {
                (Some(tokio::spawn(type_in(reader, typing))), Some(writer))
            }
            None => (None, None),
        };
        Ok(Self {
            master,
            ended,
            shown,
            output: Mutex::new(Some(tokio::spawn(output.copy()))),
            input,
            keyboard: Mutex::new(writer),
        })
    }

    /// Sets columns and rows.
    pub(super) fn resize(&self, size: (u16, u16)) -> io::Result<()> {
        pty::resize(self.master.as_fd(), size)
    }

    /// Ends the input once its clients are gone.
    pub(super) fn close_input(&self) {
        drop(self.keyboard.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The process has ended: resolves when the client has taken its last words, or has taken nothing for
    /// `patience`; the rest then follows if it comes back to it.
    pub(super) async fn finished(&self, patience: Duration) {
        self.ended.notify_one();
        if let Some(input) = &self.input {
            input.abort();
        }
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut output) = output else { return };
        let mut before = self.shown.load(Ordering::Relaxed);
        while tokio::time::timeout(patience, &mut output).await.is_err() {
            let now = self.shown.load(Ordering::Relaxed);
            if now == before {
                *self.output.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
                return;
            }
            before = now;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        for task in output.iter().chain(&self.input) {
            task.abort();
        }
    }
}

/// From the terminal to the client.
struct Output {
    master: Arc<pipe::Receiver>,
    /// Until the process has ended.
    slave: Option<OwnedFd>,
    screen: Screen,
    ended: Arc<Notify>,
    shown: Arc<AtomicU64>,
}

impl Output {
    async fn copy(mut self) {
        if let Err(error) = self.follow().await {
            tracing::warn!(%error, "copy the output of a terminal");
        }
    }

    async fn follow(&mut self) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let ended = Arc::clone(&self.ended);
        loop {
            tokio::select! {
                biased;
                ready = self.master.readable() => ready?,
                () = ended.notified() => break,
            }
            match self.master.try_read(&mut piece) {
                Ok(0) => break,
                Ok(count) => self.show(&piece[..count]).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // No program has it open; so the one that counts has ended.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
                Err(error) => return Err(error),
            }
        }
        // From here on only others can keep it open, who are not waited for.
        self.slave = None;
        loop {
            // The kernel has what was written ready for the reader before it says that there is nothing.
            match rustix::io::read(&*self.master, &mut *piece) {
                Ok(0) | Err(Errno::AGAIN | Errno::IO) => return Ok(()),
                Ok(count) => self.show(&piece[..count]).await?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    async fn show(&mut self, piece: &[u8]) -> io::Result<()> {
        let shown = match &mut self.screen {
            Screen::Null => Ok(()),
            Screen::Pipe(pipe) => pipe.write_all(piece).await,
            // Files are as quick as the page cache.
            Screen::File(file) => file.write_all(piece),
        };
        if let Err(error) = shown {
            // The program goes on without anybody who looks, as with a full disk under a log.
            tracing::warn!(%error, "show the output of a terminal");
            self.screen = Screen::Null;
        }
        self.shown.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// From the client to the terminal. What ends the input is typed too: the terminal's character for it, twice,
/// since the first one only sends off a line that is not finished.
async fn type_in(mut reader: pipe::Receiver, mut terminal: pipe::Sender) {
    let mut piece = vec![0; PIECE];
    loop {
        let typed = match reader.read(&mut piece).await {
            Ok(0) => {
                let end = end_of_file(&terminal);
                let _ = terminal.write_all(&[end, end]).await;
                return;
            }
            Ok(count) => terminal.write_all(&piece[..count]).await,
            Err(error) => Err(error),
        };
        if let Err(error) = typed {
            tracing::debug!(%error, "type on a terminal");
            return;
        }
    }
}

fn end_of_file(terminal: &pipe::Sender) -> u8 {
    /// Control-D, where the programs have set none.
    const USUAL: u8 = 4;
    let attributes = rustix::termios::tcgetattr(terminal);
    attributes.map_or(USUAL, |set| set.special_codes[SpecialCodeIndex::VEOF])
}
