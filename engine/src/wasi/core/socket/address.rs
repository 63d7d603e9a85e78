//! Address families, and the addresses of a socket.

use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, getpeername, getsockname, sockopt};

use super::Socket;
use crate::wasi::core::error::Result;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Family {
    Inet4,
    Inet6,
}

impl Family {
    /// The family that an address belongs to.
    #[must_use]
    pub fn of(address: &IpAddr) -> Family {
        if address.is_ipv4() { Family::Inet4 } else { Family::Inet6 }
    }

    pub(super) fn to_host(self) -> AddressFamily {
        match self {
            Family::Inet4 => AddressFamily::INET,
            Family::Inet6 => AddressFamily::INET6,
        }
    }
}

impl Socket {
    /// The family of its addresses.
    ///
    /// # Errors
    /// `EAFNOSUPPORT` for a socket handed in that has other addresses.
    pub fn family(&self) -> Result<Family> {
        match sockopt::socket_domain(&self.fd)? {
            AddressFamily::INET => Ok(Family::Inet4),
            AddressFamily::INET6 => Ok(Family::Inet6),
            _ => Err(Errno::AFNOSUPPORT.into()),
        }
    }

    /// Its own address; all zeros before it is bound.
    ///
    /// # Errors
    /// As [`Socket::family`].
    pub fn local_address(&self) -> Result<SocketAddr> {
        inet(Some(getsockname(&self.fd)?))
    }

    /// The other side's address.
    ///
    /// # Errors
    /// `ENOTCONN`; as [`Socket::family`].
    pub fn peer_address(&self) -> Result<SocketAddr> {
        inet(getpeername(&self.fd)?)
    }
}

fn inet(address: Option<SocketAddrAny>) -> Result<SocketAddr> {
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    address.ok_or_else(|| Errno::AFNOSUPPORT.into())
}
