//! Sockets that were handed in, and connections accepted from them.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, Shutdown,
    SocketFlags, accept_with, recvmsg, sendmsg,
};

use super::error::Result;
use super::mode::{Mode, ModeCell};
use super::poll;
use super::stat::{Kind, Stat};

/// A socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    kind: Kind,
    listening: bool,
    /// How the guest wants it to behave; only `nonblock` means something here.
    pub mode: ModeCell,
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
    /// Takes a socket; whether it listens is asked of the kernel.
    ///
    /// # Errors
    /// `ENOTSOCK` for anything else.
    pub fn adopt(fd: OwnedFd) -> Result<Socket> {
        let kind = Kind::of_socket(rustix::net::sockopt::socket_type(&fd)?);
        let listening = rustix::net::sockopt::socket_acceptconn(&fd)?;
        if listening {
            // Accepting has no per-call flag; waiting is done by polling instead.
            rustix::io::ioctl_fionbio(&fd, true)?;
        }
        Ok(Socket { fd, kind, listening, mode: Mode::default().into() })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it accepts connections.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listening
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
    /// `EAGAIN` in non-blocking mode; what `accept4(2)` says.
    pub fn accept(&self, mode: Mode) -> Result<Socket> {
        let fd = self.call(PollFlags::IN, || accept_with(&self.fd, SocketFlags::CLOEXEC))?;
        Ok(Socket { fd, kind: self.kind, listening: false, mode: mode.into() })
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
        if self.listening { 0 } else { rustix::io::ioctl_fionread(&self.fd).unwrap_or(0) }
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
