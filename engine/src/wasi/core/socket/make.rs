//! Sockets that the guest makes: opened, bound, listening, connected.

use std::net::SocketAddr;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType, bind, connect, listen, socket_with};

use super::{Family, Socket};
use crate::wasi::core::error::{Error, Result};
use crate::wasi::core::mode::Mode;
use crate::wasi::core::network::Network;
use crate::wasi::core::stat::Kind;
use crate::wasi::core::stop::Stop;

/// Connections that may wait to be accepted when the guest does not care; the kernel takes
/// `net.core.somaxconn` if that is less.
const BACKLOG: i32 = 4096;

impl Socket {
    /// A new TCP or UDP socket.
    ///
    /// # Errors
    /// [`Error::Denied`] when the policy allows no network at all; [`Error::Invalid`] for other
    /// kinds; what `socket(2)` says.
    pub fn open(network: &Network, family: Family, kind: Kind) -> Result<Socket> {
        network.check_open()?;
        let socket_type = match kind {
            Kind::StreamSocket => SocketType::STREAM,
            Kind::DatagramSocket => SocketType::DGRAM,
            _ => return Err(Error::Invalid),
        };
        // Connecting and accepting have no per-call flag.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family.to_host(), socket_type, flags, None)?;
        Ok(Socket::new(fd, kind, None, Mode::default()))
    }

    /// Gives it an address of its own.
    ///
    /// # Errors
    /// [`Error::Denied`]; what `bind(2)` says, above all `EADDRINUSE` and `EADDRNOTAVAIL`.
    pub fn bind(&self, network: &Network, address: SocketAddr) -> Result<()> {
        network.check_bind(address)?;
        Ok(bind(&self.fd, &address)?)
    }

    /// Accepts connections from now on, and obeys `stop`. Up to `backlog` of them wait; a negative
    /// number is as many as the kernel allows.
    ///
    /// # Errors
    /// [`Error::Denied`]; what `listen(2)` says.
    pub fn listen(
        &self,
        network: &Network,
        backlog: i32,
        stop: Option<&'static Stop>,
    ) -> Result<()> {
        network.check_listen(self.local_address()?)?;
        listen(&self.fd, if backlog < 0 { BACKLOG } else { backlog })?;
        if !self.is_listening() {
            rustix::io::ioctl_fionbio(&self.fd, true)?;
        }
        self.becomes_listener(stop)
    }

    /// Starts to connect without waiting. When the socket becomes writable, the next call (with
    /// whatever address) gives the outcome.
    ///
    /// # Errors
    /// [`Error::Denied`]; `EINPROGRESS` when it takes time, `EALREADY` while it does, `EISCONN` when
    /// it is connected; what `connect(2)` says.
    pub fn start_connect(&self, network: &Network, address: SocketAddr) -> Result<()> {
        network.check_outgoing(address)?;
        loop {
            match connect(&self.fd, &address) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Connects; the time limit for sending holds here.
    ///
    /// # Errors
    /// As [`Socket::start_connect`], `EINPROGRESS` and `EALREADY` only in non-blocking mode and at
    /// the time limit; the attempt goes on then.
    pub fn connect(&self, network: &Network, address: SocketAddr) -> Result<()> {
        let deadline = self.limits.send.deadline();
        loop {
            match self.start_connect(network, address) {
                // Waiting and asking again is what the kernel does for a blocking socket, and it
                // leaves the socket in the same state.
                Err(Error::Os(Errno::INPROGRESS | Errno::ALREADY))
                    if self.waits_for_connection(deadline)? => {}
                result => return result,
            }
        }
    }

    fn waits_for_connection(&self, deadline: Option<u64>) -> Result<bool> {
        use std::os::fd::AsFd as _;
        self.waits([self.as_fd()].into_iter(), PollFlags::OUT, deadline)
    }
}
