//! Sockets that listen before the guest runs, by address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use serde::{Deserialize, Serialize};

use super::error::Result;

/// Connections that may wait to be accepted; the kernel takes `net.core.somaxconn` if that is less.
const BACKLOG: i32 = 4096;

/// Where to listen for TCP connections: `PORT` on all addresses of both families, or `ADDRESS:PORT`.
/// Port 0 is any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenAddress {
    /// `None`: all addresses.
    ip: Option<IpAddr>,
    port: u16,
}

/// Why a text is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address to listen on: write PORT, IPV4:PORT or [IPV6]:PORT, such as 8080")]
pub struct NoAddress(String);

impl FromStr for ListenAddress {
    type Err = NoAddress;

    fn from_str(text: &str) -> std::result::Result<ListenAddress, NoAddress> {
        let all = text.parse().map(|port| ListenAddress { ip: None, port });
        let one = || text.parse::<SocketAddr>();
        all.or_else(|_| one().map(|at| ListenAddress { ip: Some(at.ip()), port: at.port() }))
            .map_err(|_: std::net::AddrParseError| NoAddress(text.to_owned()))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, "port {}", self.port),
        }
    }
}

impl ListenAddress {
    /// Listens.
    ///
    /// # Errors
    /// What `bind(2)` and `listen(2)` say, above all `EADDRINUSE` and `EACCES`.
    pub fn open(&self) -> Result<OwnedFd> {
        match self.ip {
            Some(ip) => open(ip, self.port),
            None => match open(Ipv6Addr::UNSPECIFIED.into(), self.port) {
                // A machine without IPv6.
                Err(super::error::Error::Os(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) => {
                    open(Ipv4Addr::UNSPECIFIED.into(), self.port)
                }
                result => result,
            },
        }
    }
}

fn open(ip: IpAddr, port: u16) -> Result<OwnedFd> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(family, SocketType::STREAM, flags, None)?;
    // A server that starts anew must not wait for old connections to be forgotten.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if ip == Ipv6Addr::UNSPECIFIED {
        sockopt::set_ipv6_v6only(&fd, false)?;
    }
    bind(&fd, &SocketAddr::new(ip, port))?;
    listen(&fd, BACKLOG)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn addresses_are_ports_or_pairs() {
        let shown = |text: &str| text.parse::<ListenAddress>().map(|at| at.to_string());
        assert_eq!(shown("8080"), Ok("port 8080".into()));
        assert_eq!(shown("127.0.0.1:80"), Ok("127.0.0.1:80".into()));
        assert_eq!(shown("[::1]:80"), Ok("[::1]:80".into()));
        for bad in ["", "65536", "-1", "localhost:80", "1.2.3.4", "::1:80", ":80", "80,81"] {
            let error = shown(bad).unwrap_err();
            assert!(error.to_string().contains(&format!("`{bad}`")), "{error}");
        }
    }

    #[test]
    fn a_port_alone_is_reached_over_both_families() {
        let at = ListenAddress { ip: None, port: 0 };
        let listener = TcpListener::from(at.open().unwrap());
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect(("::1", port)).unwrap();
        }
        let taken = ListenAddress { ip: None, port }.open().unwrap_err();
        assert_eq!(taken, Errno::ADDRINUSE.into());
    }
}
