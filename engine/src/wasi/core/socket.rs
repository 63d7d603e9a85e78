//! Sockets that were handed in, and connections accepted from them.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, Shutdown,
    SocketFlags, accept_with, recvmsg, sendmsg,
};

use super::error::{Error, Result};
use super::mode::{Mode, ModeCell};
use super::poll;
use super::stat::{Kind, Stat};
use super::stop::{Flight, Stop};

/// A socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    kind: Kind,
    listener: Option<Listener>,
    /// Counts it among the accepted connections.
    _flight: Option<Flight>,
    /// How the guest wants it to behave; only `nonblock` means something here.
    pub mode: ModeCell,
}

/// What a listening socket has besides.
#[derive(Debug, Default)]
struct Listener {
    stop: Option<&'static Stop>,
    /// The guest has got the error that says it is being stopped.
    told: AtomicBool,
}

/// What a receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes put into the buffers.
    pub bytes: usize,
    /// The rest of a datagram did not fit and is lost.
    pub truncated: bool,
}

/// How to receive.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiveOptions {
    /// Leave the bytes in the queue.
    pub peek: bool,
    /// Wait until the buffers are full.
    pub wait_all: bool,
}

impl Socket {
    /// Takes a socket; whether it listens is asked of the kernel. If so, it obeys `stop`.
    ///
    /// # Errors
    /// `ENOTSOCK` for anything else.
    pub fn adopt(fd: OwnedFd, stop: Option<&'static Stop>) -> Result<Socket> {
        let kind = Kind::of_socket(rustix::net::sockopt::socket_type(&fd)?);
        let listener = if rustix::net::sockopt::socket_acceptconn(&fd)? {
            // Accepting has no per-call flag; waiting is done by polling instead.
            rustix::io::ioctl_fionbio(&fd, true)?;
            stop.map(Stop::arm).transpose()?;
            Some(Listener { stop, told: AtomicBool::new(false) })
        } else {
            None
        };
        Ok(Socket { fd, kind, listener, _flight: None, mode: Mode::default().into() })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it accepts connections.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listener.is_some()
    }

    /// What it is to be waited for with: its own descriptor, and for a listening one that which tells
    /// that the guest is being stopped. None once the guest knows: nothing comes any more.
    pub fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let stop = self.listener.as_ref().and_then(|listener| listener.stop);
        let told = stop.is_some() && self.knows();
        if let Some(stop) = stop.filter(|_| told) {
            stop.note_waiting();
        }
        let own = (!told).then(|| self.as_fd());
        own.into_iter().chain(stop.filter(|_| !told).and_then(Stop::wake))
    }

    /// Whether the guest knows that it accepts nothing any more.
    fn knows(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.told.load(Ordering::Relaxed))
    }

    /// The attributes.
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn stat(&self) -> Result<Stat> {
        Ok(Stat { kind: self.kind, ..Stat::from_host(&rustix::fs::fstat(&self.fd)?) })
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// `EAGAIN` in non-blocking mode; [`Error::Stopped`] once when the guest is being stopped; what
    /// `accept4(2)` says.
    pub fn accept(&self, mode: Mode) -> Result<Socket> {
        loop {
            let stop = self.listener.as_ref().and_then(|listener| listener.stop);
            if let Some(stop) = stop.filter(|stop| stop.is_asked()) {
                self.refuse(stop)?;
            }
            match accept_with(&self.fd, SocketFlags::CLOEXEC) {
                Err(Errno::AGAIN) if !self.mode.get().nonblock => {
                    poll::until_any_ready(self.sources(), PollFlags::IN)?;
                }
                Err(Errno::INTR) => {}
                result => {
                    let (kind, flight) = (self.kind, stop.map(Stop::begin));
                    let mode = mode.into();
                    return Ok(Socket { fd: result?, kind, listener: None, _flight: flight, mode });
                }
            }
        }
    }

    /// Accepts nothing more: tells so once, and waits for the end from then on.
    fn refuse(&self, stop: &Stop) -> Result<()> {
        let told = self.listener.as_ref().map(|listener| listener.told.swap(true, Ordering::Relaxed));
        if told == Some(false) {
            return Err(Error::Stopped);
        }
        if self.mode.get().nonblock {
            stop.note_waiting();
        } else {
            stop.wait_for_the_end();
        }
        Err(Errno::AGAIN.into())
    }

    /// Receives into the buffers.
    ///
    /// # Errors
    /// `EAGAIN` in non-blocking mode; what `recvmsg(2)` says.
    pub fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        options: ReceiveOptions,
    ) -> Result<Received> {
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        flags.set(RecvFlags::DONTWAIT, self.mode.get().nonblock);
        flags.set(RecvFlags::PEEK, options.peek);
        flags.set(RecvFlags::WAITALL, options.wait_all);
        let message = self.call(PollFlags::IN, || {
            // Without room for control messages, descriptors that are sent along are dropped.
            recvmsg(&self.fd, buffers, &mut RecvAncillaryBuffer::default(), flags)
        })?;
        let truncated = message.flags.contains(ReturnFlags::TRUNC);
        Ok(Received { bytes: message.bytes, truncated })
    }

    /// Sends the buffers as one message or piece of a stream; may be short.
    ///
    /// # Errors
    /// `EAGAIN` in non-blocking mode, `EPIPE` when the other side is gone; what `sendmsg(2)` says.
    pub fn send(&self, buffers: &[IoSlice<'_>]) -> Result<usize> {
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::DONTWAIT, self.mode.get().nonblock);
        self.call(PollFlags::OUT, || {
            sendmsg(&self.fd, buffers, &mut SendAncillaryBuffer::default(), flags)
        })
    }

    /// Ends one or both directions.
    ///
    /// # Errors
    /// What `shutdown(2)` says.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        Ok(rustix::net::shutdown(&self.fd, how)?)
    }

    /// How many bytes a receive would get now.
    #[must_use]
    pub fn available(&self) -> u64 {
        if self.is_listening() { 0 } else { rustix::io::ioctl_fionread(&self.fd).unwrap_or(0) }
    }

    /// Waits if the guest wants to, whatever the host's description does.
    fn call<T>(
        &self,
        interest: PollFlags,
        mut call: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T> {
        loop {
            match call() {
                Err(Errno::AGAIN) if !self.mode.get().nonblock => {
                    poll::until_ready(self.as_fd(), interest)?
                }
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
