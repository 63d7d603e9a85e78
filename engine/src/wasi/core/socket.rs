//! Sockets: handed in, made by the guest, and connections accepted.
//!
//! Whether a guest waits is decided call by call, by polling: the kernel's own blocking would not
//! notice that the guest is being stopped or has set a time limit.

mod address;
mod make;
mod options;

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, Shutdown,
    SocketFlags, accept_with, recvmsg, sendmsg, sendmsg_addr,
};

use super::error::{Error, Result};
use super::mode::{Mode, ModeCell};
use super::network::Network;
use super::poll;
use super::signals;
use super::stat::{Kind, Stat};
use super::stop::{Flight, Stop};

pub use address::Family;
pub use options::{Flag, Number, Span};

use options::Limits;

/// A socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    kind: Kind,
    /// From the moment it listens.
    listener: OnceLock<Listener>,
    limits: Limits,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes put into the buffers.
    pub bytes: usize,
    /// The rest of a datagram did not fit and is lost.
    pub truncated: bool,
    /// Who sent it, if the kernel says: datagrams only.
    pub sender: Option<SocketAddr>,
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
    pub fn adopt(fd: OwnedFd, mode: Mode, stop: Option<&'static Stop>) -> Result<Socket> {
        let kind = Kind::of_socket(rustix::net::sockopt::socket_type(&fd)?);
        let listens = rustix::net::sockopt::socket_acceptconn(&fd)?;
        let socket = Socket::new(fd, kind, None, mode);
        if listens {
            // Accepting has no per-call flag; waiting is done by polling instead.
            rustix::io::ioctl_fionbio(&socket.fd, true)?;
            socket.becomes_listener(stop)?;
        }
        Ok(socket)
    }

    fn new(fd: OwnedFd, kind: Kind, flight: Option<Flight>, mode: Mode) -> Socket {
        let (listener, limits) = (OnceLock::new(), Limits::default());
        Socket { fd, kind, listener, limits, _flight: flight, mode: mode.into() }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it accepts connections.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listener.get().is_some()
    }

    fn becomes_listener(&self, stop: Option<&'static Stop>) -> Result<()> {
        stop.map(Stop::arm).transpose()?;
        // One that listens already stays what it is: only its backlog changes.
        let _ = self.listener.set(Listener { stop, told: AtomicBool::new(false) });
        Ok(())
    }

    fn stop(&self) -> Option<&'static Stop> {
        self.listener.get().and_then(|listener| listener.stop)
    }

    /// What it is to be waited for with: its own descriptor, and for a listening one that which tells
    /// that the guest is being stopped. None once the guest knows: nothing comes any more.
    pub fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let stop = self.stop();
        let told = stop.is_some() && self.knows();
        if let Some(stop) = stop.filter(|_| told) {
            stop.note_waiting();
        }
        let own = (!told).then(|| self.as_fd());
        own.into_iter().chain(stop.filter(|_| !told).and_then(Stop::wake))
    }

    /// Whether the guest knows that it accepts nothing any more.
    fn knows(&self) -> bool {
        self.listener.get().is_some_and(|listener| listener.told.load(Ordering::Relaxed))
    }

    /// The attributes.
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn stat(&self) -> Result<Stat> {
        Ok(Stat { kind: self.kind, ..Stat::from_host(&rustix::fs::fstat(&self.fd)?) })
    }

    /// Takes the next connection. The time limit for receiving holds here too.
    ///
    /// # Errors
    /// `EAGAIN` in non-blocking mode and at the time limit; [`Error::Stopped`] once when the guest
    /// is being stopped; what `accept4(2)` says.
    pub fn accept(&self, mode: Mode) -> Result<Socket> {
        let deadline = self.limits.receive.deadline();
        loop {
            let stop = self.stop();
            if let Some(stop) = stop.filter(|stop| stop.is_asked()) {
                self.refuse(stop)?;
            }
            match accept_with(&self.fd, SocketFlags::CLOEXEC) {
                Err(Errno::AGAIN) if self.waits(self.sources(), PollFlags::IN, deadline)? => {}
                Err(Errno::INTR) => signals::check()?,
                result => {
                    let flight = stop.map(Stop::begin);
                    return Ok(Socket::new(result?, self.kind, flight, mode));
                }
            }
        }
    }

    /// Accepts nothing more: tells so once, and waits for the end from then on.
    fn refuse(&self, stop: &Stop) -> Result<()> {
        let listener = self.listener.get();
        if listener.is_some_and(|listener| !listener.told.swap(true, Ordering::Relaxed)) {
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
    /// `EAGAIN` in non-blocking mode and at the time limit; what `recvmsg(2)` says.
    pub fn receive(
        &self,
        mut buffers: &mut [IoSliceMut<'_>],
        options: ReceiveOptions,
    ) -> Result<Received> {
        let mut received = self.receive_some(buffers, options)?;
        let piecewise = options.wait_all && !options.peek && self.kind == Kind::StreamSocket;
        if !piecewise || self.mode.get().nonblock {
            return Ok(received);
        }
        // The kernel waits for all bytes only where it does the waiting.
        let mut last = received.bytes;
        while last > 0 {
            IoSliceMut::advance_slices(&mut buffers, last);
            if buffers.iter().all(|buffer| buffer.is_empty()) {
                break;
            }
            // An error after some bytes is for the next call to find.
            last = self.receive_some(buffers, options).map_or(0, |more| more.bytes);
            received.bytes += last;
        }
        Ok(received)
    }

    fn receive_some(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        options: ReceiveOptions,
    ) -> Result<Received> {
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        let deadline = self.limits.receive.deadline();
        flags.set(RecvFlags::DONTWAIT, self.mode.get().nonblock || deadline.is_some());
        flags.set(RecvFlags::PEEK, options.peek);
        flags.set(RecvFlags::WAITALL, options.wait_all);
        let message = self.call(PollFlags::IN, deadline, || {
            // Without room for control messages, descriptors that are sent along are dropped.
            recvmsg(&self.fd, buffers, &mut RecvAncillaryBuffer::default(), flags)
        })?;
        let truncated = message.flags.contains(ReturnFlags::TRUNC);
        let sender = message.address.and_then(|sender| SocketAddr::try_from(sender).ok());
        Ok(Received { bytes: message.bytes, truncated, sender })
    }

    /// Sends the buffers as one message or piece of a stream; may be short.
    ///
    /// # Errors
    /// `EAGAIN` in non-blocking mode and at the time limit, `EPIPE` when the other side is gone;
    /// what `sendmsg(2)` says.
    pub fn send(&self, buffers: &[IoSlice<'_>]) -> Result<usize> {
        self.send_with(|flags| {
            sendmsg(&self.fd, buffers, &mut SendAncillaryBuffer::default(), flags)
        })
    }

    /// Sends a datagram to an address that the policy allows.
    ///
    /// # Errors
    /// As [`Socket::send`]; [`Error::Denied`].
    pub fn send_to(
        &self,
        network: &Network,
        buffers: &[IoSlice<'_>],
        address: SocketAddr,
    ) -> Result<usize> {
        network.check_outgoing(address)?;
        self.send_with(|flags| {
            let control = &mut SendAncillaryBuffer::default();
            sendmsg_addr(&self.fd, &address, buffers, control, flags)
        })
    }

    fn send_with(
        &self,
        mut send: impl FnMut(SendFlags) -> rustix::io::Result<usize>,
    ) -> Result<usize> {
        let mut flags = SendFlags::NOSIGNAL;
        let deadline = self.limits.send.deadline();
        flags.set(SendFlags::DONTWAIT, self.mode.get().nonblock || deadline.is_some());
        self.call(PollFlags::OUT, deadline, || send(flags))
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
        deadline: Option<u64>,
        mut call: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T> {
        loop {
            match call() {
                Err(Errno::AGAIN)
                    if self.waits([self.as_fd()].into_iter(), interest, deadline)? => {}
                Err(Errno::INTR) => signals::check()?,
                result => return Ok(result?),
            }
        }
    }

    /// Waits, if the guest wants to, until a call is worth another try. Without success when it does
    /// not want to or the monotonic clock shows `deadline`.
    fn waits<'f>(
        &self,
        sources: impl Iterator<Item = BorrowedFd<'f>>,
        interest: PollFlags,
        deadline: Option<u64>,
    ) -> Result<bool> {
        Ok(!self.mode.get().nonblock && poll::until_any_ready(sources, interest, deadline)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
