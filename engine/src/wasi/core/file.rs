//! Files and streams: everything that is read and written by descriptor and is not a socket.

use std::io::{IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{Advice, FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use super::error::{Error, Result};
use super::mode::{Mode, ModeCell};
use super::poll;
use super::signals;
use super::stat::{Kind, NewTimes, Stat};

/// Bytes that a pipe takes at once when it is writable (`PIPE_BUF` of `pipe(7)`).
const PIPE_BUF: usize = 4096;

/// A host descriptor: one that the guest owns, or one that the process keeps.
#[derive(Debug)]
pub enum Handle {
    /// Closed with the guest's descriptor.
    Owned(OwnedFd),
    /// One of the process's standard streams. It stays open when the guest closes its own, so that
    /// its number cannot be reused while the host still writes reports to it.
    Process(BorrowedFd<'static>),
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Handle::Owned(fd) => fd.as_fd(),
            Handle::Process(fd) => *fd,
        }
    }
}

/// What a descriptor was opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Access {
    pub read: bool,
    pub write: bool,
}

/// A file, device, pipe or terminal.
#[derive(Debug)]
pub struct File {
    handle: Handle,
    kind: Kind,
    terminal: bool,
    access: Access,
    /// The host's description does not block by itself.
    host_nonblock: bool,
    /// Opened through a directory that was granted for reading only.
    frozen: bool,
    /// How the guest wants it to behave.
    pub mode: ModeCell,
}

impl File {
    /// Takes a descriptor as it comes: kind, access and append mode are asked of the kernel.
    ///
    /// # Errors
    /// When the kernel refuses to tell, above all `EBADF` for a standard stream that is closed.
    pub fn adopt(handle: Handle) -> Result<File> {
        let kind = Kind::of(&rustix::fs::fstat(&handle)?);
        let flags = rustix::fs::fcntl_getfl(&handle)?;
        let access = match flags & OFlags::RWMODE {
            OFlags::RDWR => Access { read: true, write: true },
            OFlags::WRONLY => Access { read: false, write: true },
            _ => Access { read: true, write: false },
        };
        let mode = Mode { append: flags.contains(OFlags::APPEND), ..Mode::default() };
        Ok(File {
            terminal: kind == Kind::CharacterDevice && rustix::termios::isatty(&handle),
            host_nonblock: flags.contains(OFlags::NONBLOCK),
            handle,
            kind,
            access,
            frozen: false,
            mode: mode.into(),
        })
    }

    /// A file that was just opened with `O_NONBLOCK`.
    pub(super) fn opened(
        fd: OwnedFd,
        kind: Kind,
        access: Access,
        mode: Mode,
        frozen: bool,
    ) -> File {
        let terminal = kind == Kind::CharacterDevice && rustix::termios::isatty(&fd);
        let handle = Handle::Owned(fd);
        let mode = mode.into();
        File { handle, kind, terminal, access, host_nonblock: true, frozen, mode }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether it has a position: pipes, terminals and sockets have none.
    #[must_use]
    pub fn is_seekable(&self) -> bool {
        match self.kind {
            Kind::RegularFile | Kind::BlockDevice => true,
            Kind::CharacterDevice => !self.terminal,
            _ => false,
        }
    }

    /// What it was opened for.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Reads at the current position. Fewer bytes than asked for are normal; 0 is the end.
    ///
    /// # Errors
    /// `EAGAIN` in non-blocking mode; what `readv(2)` says.
    pub fn read(&self, buffers: &mut [IoSliceMut<'_>]) -> Result<usize> {
        self.call(PollFlags::IN, || rustix::io::readv(&self.handle, buffers))
    }

    /// Writes at the current position, or at the end in append mode; may be short.
    ///
    /// # Errors
    /// `EAGAIN` in non-blocking mode; what `pwritev2(2)` says, `EPIPE` included.
    pub fn write(&self, buffers: &[IoSlice<'_>]) -> Result<usize> {
        let flags = self.mode.get().write_flags();
        let first;
        let buffers = match buffers {
            // Ready means room for this many bytes; more could block in the kernel.
            _ if self.checks_first() && self.kind == Kind::Pipe => {
                let buffer = buffers.iter().find(|b| !b.is_empty()).map_or(&[][..], |b| &b[..]);
                first = [IoSlice::new(&buffer[..buffer.len().min(PIPE_BUF)])];
                &first[..]
            }
            all => all,
        };
        self.call(PollFlags::OUT, || {
            if flags.is_empty() {
                rustix::io::writev(&self.handle, buffers)
            } else {
                rustix::io::pwritev2(&self.handle, buffers, u64::MAX, flags)
            }
        })
    }

    /// Reads at `offset` bytes without moving the position.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an offset over 2^63; what `preadv(2)` says.
    pub fn read_at(&self, buffers: &mut [IoSliceMut<'_>], offset: u64) -> Result<usize> {
        let offset = file_offset(offset)?;
        self.call(PollFlags::IN, || rustix::io::preadv(&self.handle, buffers, offset))
    }

    /// Writes at `offset` bytes without moving the position, in append mode too (POSIX's rule, not
    /// Linux's).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an offset over 2^63; what `pwritev2(2)` says.
    pub fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        let offset = file_offset(offset)?;
        let flags = Mode { append: false, ..self.mode.get() }.write_flags();
        self.call(PollFlags::OUT, || rustix::io::pwritev2(&self.handle, buffers, offset, flags))
    }

    /// Moves the position and returns it.
    ///
    /// # Errors
    /// [`Error::NotSeekable`] for pipes and terminals, [`Error::Invalid`] for a negative result.
    pub fn seek(&self, to: SeekFrom) -> Result<u64> {
        if !self.is_seekable() {
            return Err(Error::NotSeekable);
        }
        if let SeekFrom::Start(offset) = to {
            file_offset(offset)?;
        }
        Ok(rustix::fs::seek(&self.handle, to)?)
    }

    /// The attributes.
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn stat(&self) -> Result<Stat> {
        Ok(Stat::from_host(&rustix::fs::fstat(&self.handle)?))
    }

    /// Cuts or extends the file to `size` bytes.
    ///
    /// # Errors
    /// What `ftruncate(2)` says.
    pub fn set_size(&self, size: u64) -> Result<()> {
        self.thaw()?;
        Ok(rustix::fs::ftruncate(&self.handle, file_offset(size)?)?)
    }

    /// Makes sure that `len` bytes from `offset` have room on disk; extends the file if needed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty or impossible range; what `fallocate(2)` says.
    pub fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.thaw()?;
        let range = file_range(offset, len)?;
        if range.is_none() {
            return Err(Error::Invalid);
        }
        Ok(rustix::fs::fallocate(&self.handle, FallocateFlags::empty(), offset, len)?)
    }

    /// Tells the kernel how the `len` bytes from `offset` will be used; 0 means up to the end.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an impossible range; what `posix_fadvise(2)` says.
    pub fn advise(&self, offset: u64, len: u64, advice: Advice) -> Result<()> {
        Ok(rustix::fs::fadvise(&self.handle, offset, file_range(offset, len)?, advice)?)
    }

    /// Changes the times.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] through a read-only grant; what `futimens(3)` says.
    pub fn set_times(&self, times: NewTimes) -> Result<()> {
        self.thaw()?;
        Ok(rustix::fs::futimens(&self.handle, &times.to_host())?)
    }

    /// Writes data and attributes to disk.
    ///
    /// # Errors
    /// What `fsync(2)` says.
    pub fn sync(&self) -> Result<()> {
        Ok(rustix::fs::fsync(&self.handle)?)
    }

    /// Writes the data to disk.
    ///
    /// # Errors
    /// What `fdatasync(2)` says.
    pub fn data_sync(&self) -> Result<()> {
        Ok(rustix::fs::fdatasync(&self.handle)?)
    }

    /// How many bytes a read would get now, if that is known.
    #[must_use]
    pub fn available(&self) -> u64 {
        if self.kind == Kind::RegularFile {
            let size = self.stat().map_or(0, |stat| stat.size);
            return size.saturating_sub(rustix::fs::tell(&self.handle).unwrap_or(0));
        }
        rustix::io::ioctl_fionread(&self.handle).unwrap_or(0)
    }

    /// Whether a call must ask for readiness first, since the host's description would block.
    fn checks_first(&self) -> bool {
        self.mode.get().nonblock && !self.host_nonblock && !self.always_ready()
    }

    fn always_ready(&self) -> bool {
        matches!(self.kind, Kind::RegularFile | Kind::BlockDevice)
    }

    fn thaw(&self) -> Result<()> {
        if self.frozen { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Makes a call blocking or not as the guest wants, whatever the host's description does.
    fn call(
        &self,
        interest: PollFlags,
        mut call: impl FnMut() -> rustix::io::Result<usize>,
    ) -> Result<usize> {
        if self.checks_first() && !poll::is_ready(self.as_fd(), interest)? {
            return Err(Errno::AGAIN.into());
        }
        loop {
            match call() {
                Err(Errno::AGAIN) if !self.mode.get().nonblock => {
                    poll::until_ready(self.as_fd(), interest)?
                }
                Err(Errno::INTR) => signals::check()?,
                result => return Ok(result?),
            }
        }
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Checks that an offset fits the kernel's signed type.
fn file_offset(offset: u64) -> Result<u64> {
    if i64::try_from(offset).is_ok() { Ok(offset) } else { Err(Error::Invalid) }
}

/// Checks a range; the result is its length unless that is 0.
fn file_range(offset: u64, len: u64) -> Result<Option<NonZeroU64>> {
    file_offset(offset.checked_add(len).ok_or(Error::Invalid)?)?;
    Ok(NonZeroU64::new(len))
}
