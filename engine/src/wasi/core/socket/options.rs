//! Options of sockets, by what they are and not by level and number.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt as more};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::{Family, Socket};
use crate::wasi::core::clock::Clock;
use crate::wasi::core::error::{Error, Result};

/// Longest span that a time limit keeps, in nanoseconds: 292 years are for good.
const FOREVER: u64 = i64::MAX as u64;

/// An option that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Flag {
    ReuseAddress,
    ReusePort,
    KeepAlive,
    Broadcast,
    OutOfBandInline,
    /// Only hosts of the own network are reached.
    DontRoute,
    NoDelay,
    QuickAcknowledge,
    /// The first bytes travel with the request to connect.
    FastOpen,
    /// An IPv6 socket takes no IPv4 traffic.
    V6Only,
    /// What is sent to a group of IPv4 comes back to members on this machine.
    MulticastLoop4,
    /// The same of IPv6.
    MulticastLoop6,
}

/// An option that is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// Bytes that wait to be received. The kernel doubles what is set and has limits.
    ReceiveBuffer,
    /// Bytes that wait to be sent; likewise.
    SendBuffer,
    /// Hops of packets, 1 to 255.
    HopLimit,
    /// Hops of packets to groups, 0 to 255.
    MulticastHopLimit,
    /// Seconds without traffic before a connection is probed.
    KeepAliveIdle,
    /// Seconds between probes.
    KeepAliveInterval,
    /// Probes without answer before a connection is given up.
    KeepAliveCount,
}

/// Which calls a time limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Receiving and accepting.
    Receive,
    /// Sending and connecting.
    Send,
}

/// How long calls wait.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) receive: Limit,
    pub(super) send: Limit,
}

/// Nanoseconds; 0 is for good.
#[derive(Debug, Default)]
pub(super) struct Limit(AtomicU64);

impl Limit {
    /// When a call that begins now gives up, on the monotonic clock.
    pub(super) fn deadline(&self) -> Option<u64> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            span => Some(Clock::Monotonic.now().saturating_add(span)),
        }
    }
}

impl Socket {
    fn limit(&self, span: Span) -> &Limit {
        match span {
            Span::Receive => &self.limits.receive,
            Span::Send => &self.limits.send,
        }
    }

    /// How long calls wait; `None` is for good.
    #[must_use]
    pub fn time_limit(&self, span: Span) -> Option<Duration> {
        match self.limit(span).0.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    /// Sets how long calls wait; no time at all is for good, as with `SO_RCVTIMEO`.
    pub fn set_time_limit(&self, span: Span, limit: Option<Duration>) {
        let nanoseconds = limit.unwrap_or_default().as_nanos();
        let nanoseconds = u64::try_from(nanoseconds).unwrap_or(FOREVER).min(FOREVER);
        self.limit(span).0.store(nanoseconds, Ordering::Relaxed);
    }

    /// Whether an option is on.
    ///
    /// # Errors
    /// What `getsockopt(2)` says, such as `ENOPROTOOPT` and `EOPNOTSUPP` for an option that another
    /// kind of socket has.
    pub fn flag(&self, flag: Flag) -> Result<bool> {
        let fd = self.as_fd();
        Ok(match flag {
            Flag::ReuseAddress => sockopt::socket_reuseaddr(fd)?,
            Flag::ReusePort => sockopt::socket_reuseport(fd)?,
            Flag::KeepAlive => sockopt::socket_keepalive(fd)?,
            Flag::Broadcast => sockopt::socket_broadcast(fd)?,
            Flag::OutOfBandInline => sockopt::socket_oobinline(fd)?,
            Flag::DontRoute => getsockopt(&fd, more::DontRoute).map_err(host)?,
            Flag::NoDelay => sockopt::tcp_nodelay(fd)?,
            Flag::QuickAcknowledge => sockopt::tcp_quickack(fd)?,
            Flag::FastOpen => getsockopt(&fd, more::TcpFastOpenConnect).map_err(host)?,
            Flag::V6Only => sockopt::ipv6_v6only(fd)?,
            Flag::MulticastLoop4 => sockopt::ip_multicast_loop(fd)?,
            Flag::MulticastLoop6 => sockopt::ipv6_multicast_loop(fd)?,
        })
    }

    /// Turns an option on or off.
    ///
    /// # Errors
    /// As [`Socket::flag`].
    pub fn set_flag(&self, flag: Flag, on: bool) -> Result<()> {
        let fd = self.as_fd();
        match flag {
            Flag::ReuseAddress => sockopt::set_socket_reuseaddr(fd, on)?,
            Flag::ReusePort => sockopt::set_socket_reuseport(fd, on)?,
            Flag::KeepAlive => sockopt::set_socket_keepalive(fd, on)?,
            Flag::Broadcast => sockopt::set_socket_broadcast(fd, on)?,
            Flag::OutOfBandInline => sockopt::set_socket_oobinline(fd, on)?,
            Flag::DontRoute => setsockopt(&fd, more::DontRoute, &on).map_err(host)?,
            Flag::NoDelay => sockopt::set_tcp_nodelay(fd, on)?,
            Flag::QuickAcknowledge => sockopt::set_tcp_quickack(fd, on)?,
            Flag::FastOpen => setsockopt(&fd, more::TcpFastOpenConnect, &on).map_err(host)?,
            Flag::V6Only => sockopt::set_ipv6_v6only(fd, on)?,
            Flag::MulticastLoop4 => sockopt::set_ip_multicast_loop(fd, on)?,
            Flag::MulticastLoop6 => sockopt::set_ipv6_multicast_loop(fd, on)?,
        }
        Ok(())
    }

    /// The value of an option.
    ///
    /// # Errors
    /// As [`Socket::flag`].
    pub fn number(&self, number: Number) -> Result<u32> {
        let fd = self.as_fd();
        let seconds = |span: Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
        let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let six = || self.family().map(|family| family == Family::Inet6);
        Ok(match number {
            Number::ReceiveBuffer => bytes(sockopt::socket_recv_buffer_size(fd)?),
            Number::SendBuffer => bytes(sockopt::socket_send_buffer_size(fd)?),
            Number::HopLimit if six()? => sockopt::ipv6_unicast_hops(fd)?.into(),
            Number::HopLimit => sockopt::ip_ttl(fd)?,
            Number::MulticastHopLimit if six()? => sockopt::ipv6_multicast_hops(fd)?,
            Number::MulticastHopLimit => sockopt::ip_multicast_ttl(fd)?,
            Number::KeepAliveIdle => seconds(sockopt::tcp_keepidle(fd)?),
            Number::KeepAliveInterval => seconds(sockopt::tcp_keepintvl(fd)?),
            Number::KeepAliveCount => sockopt::tcp_keepcnt(fd)?,
        })
    }

    /// Changes the value of an option.
    ///
    /// # Errors
    /// As [`Socket::flag`]; `EINVAL` for a value out of range.
    pub fn set_number(&self, number: Number, value: u32) -> Result<()> {
        let fd = self.as_fd();
        let seconds = Duration::from_secs(value.into());
        let six = || self.family().map(|family| family == Family::Inet6);
        match number {
            Number::ReceiveBuffer => sockopt::set_socket_recv_buffer_size(fd, value as usize)?,
            Number::SendBuffer => sockopt::set_socket_send_buffer_size(fd, value as usize)?,
            Number::HopLimit if six()? => {
                let hops = u8::try_from(value).map_err(|_| Error::Invalid)?;
                sockopt::set_ipv6_unicast_hops(fd, Some(hops))?;
            }
            Number::HopLimit => sockopt::set_ip_ttl(fd, value)?,
            Number::MulticastHopLimit if six()? => sockopt::set_ipv6_multicast_hops(fd, value)?,
            Number::MulticastHopLimit => sockopt::set_ip_multicast_ttl(fd, value)?,
            Number::KeepAliveIdle => sockopt::set_tcp_keepidle(fd, seconds)?,
            Number::KeepAliveInterval => sockopt::set_tcp_keepintvl(fd, seconds)?,
            Number::KeepAliveCount => sockopt::set_tcp_keepcnt(fd, value)?,
        }
        Ok(())
    }

    /// How long closing waits for what is not sent yet; `None`: closing does not wait.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn linger(&self) -> Result<Option<Duration>> {
        Ok(sockopt::socket_linger(self.as_fd())?)
    }

    /// Sets how long closing waits, in whole seconds.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub fn set_linger(&self, linger: Option<Duration>) -> Result<()> {
        Ok(sockopt::set_socket_linger(self.as_fd(), linger)?)
    }

    /// What went wrong since this was asked last, such as a connection that was refused.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn take_error(&self) -> Result<Option<Errno>> {
        Ok(sockopt::socket_error(self.as_fd())?.err())
    }

    /// The name of the network device that it is bound to, or nothing.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn device(&self) -> Result<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt as _;
        Ok(getsockopt(&self.as_fd(), more::BindToDevice).map_err(host)?.into_vec())
    }

    /// Binds it to the network device of this name, or to none.
    ///
    /// # Errors
    /// `ENODEV`, `EPERM`; what `setsockopt(2)` says.
    pub fn set_device(&self, name: &[u8]) -> Result<()> {
        use std::os::unix::ffi::OsStringExt as _;
        let name = std::ffi::OsString::from_vec(name.to_vec());
        Ok(setsockopt(&self.as_fd(), more::BindToDevice, &name).map_err(host)?)
    }

    /// Joins a group (`join`) or leaves it. `interface` is a device's number; 0 lets the kernel
    /// choose.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address that is no group's; what `setsockopt(2)` says.
    pub fn set_membership(&self, group: IpAddr, interface: u32, join: bool) -> Result<()> {
        let (fd, any) = (self.as_fd(), Ipv4Addr::UNSPECIFIED);
        if !group.is_multicast() {
            return Err(Error::Invalid);
        }
        match (group, join) {
            (IpAddr::V4(group), true) => {
                sockopt::set_ip_add_membership_with_ifindex(fd, &group, &any, interface)?;
            }
            (IpAddr::V4(group), false) => {
                sockopt::set_ip_drop_membership_with_ifindex(fd, &group, &any, interface)?;
            }
            (IpAddr::V6(group), true) => sockopt::set_ipv6_add_membership(fd, &group, interface)?,
            (IpAddr::V6(group), false) => {
                sockopt::set_ipv6_drop_membership(fd, &group, interface)?;
            }
        }
        Ok(())
    }
}

/// The same number in the other library's type.
fn host(error: nix::Error) -> Errno {
    Errno::from_raw_os_error(error as i32)
}
