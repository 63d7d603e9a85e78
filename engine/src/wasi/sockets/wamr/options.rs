//! Options: a function to ask and one to change for each.

use std::time::Duration;

use super::address::read_ip;
use crate::wasi::core::socket::{Flag, Number, Span};
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;
use crate::wasi::preview1::errno::Errno;
use crate::wasi::sockets::common::with;

/// Options that are on or off: one byte.
macro_rules! flags {
    ($($get:ident $set:ident $flag:ident;)*) => {$(
        /// Writes 0 or 1.
        ///
        /// # Errors
        /// `badf`, `notsock`, `noprotoopt`; a bad address.
        pub(super) fn $get(
            ctx: &WasiCtx,
            memory: &mut GuestMemory<'_>,
            fd: u32,
            value: u32,
        ) -> Result<(), Errno> {
            let on = with(ctx, fd, |socket| Ok(socket.flag(Flag::$flag)?))?;
            Ok(memory.write(value, [u8::from(on)])?)
        }

        /// Turns it on or, with 0, off.
        ///
        /// # Errors
        /// `badf`, `notsock`, `noprotoopt`; what the host says.
        pub(super) fn $set(
            ctx: &WasiCtx,
            _: &mut GuestMemory<'_>,
            fd: u32,
            value: u32,
        ) -> Result<(), Errno> {
            with(ctx, fd, |socket| Ok(socket.set_flag(Flag::$flag, value != 0)?))
        }
    )*};
}

flags! {
    sock_get_broadcast sock_set_broadcast Broadcast;
    sock_get_ipv6_only sock_set_ipv6_only V6Only;
    sock_get_keep_alive sock_set_keep_alive KeepAlive;
    sock_get_reuse_addr sock_set_reuse_addr ReuseAddress;
    sock_get_reuse_port sock_set_reuse_port ReusePort;
    sock_get_tcp_fastopen_connect sock_set_tcp_fastopen_connect FastOpen;
    sock_get_tcp_no_delay sock_set_tcp_no_delay NoDelay;
    sock_get_tcp_quick_ack sock_set_tcp_quick_ack QuickAcknowledge;
}

/// Options that are numbers, of the width that the guest has for them.
macro_rules! numbers {
    ($($get:ident $set:ident $number:ident $width:ty;)*) => {$(
        /// Writes the value.
        ///
        /// # Errors
        /// `badf`, `notsock`, `noprotoopt`; a bad address.
        pub(super) fn $get(
            ctx: &WasiCtx,
            memory: &mut GuestMemory<'_>,
            fd: u32,
            value: u32,
        ) -> Result<(), Errno> {
            let number = with(ctx, fd, |socket| Ok(socket.number(Number::$number)?))?;
            let number = <$width>::try_from(number).map_err(|_| Errno::Overflow)?;
            Ok(memory.write(value, number.to_le_bytes())?)
        }

        /// Sets the value.
        ///
        /// # Errors
        /// `badf`, `notsock`, `noprotoopt`, `inval`; what the host says.
        pub(super) fn $set(
            ctx: &WasiCtx,
            _: &mut GuestMemory<'_>,
            fd: u32,
            value: u32,
        ) -> Result<(), Errno> {
            let value = <$width>::try_from(value).map_err(|_| Errno::Inval)?;
            with(ctx, fd, |socket| Ok(socket.set_number(Number::$number, value.into())?))
        }
    )*};
}

numbers! {
    sock_get_ip_multicast_ttl sock_set_ip_multicast_ttl MulticastHopLimit u8;
    sock_get_ip_ttl sock_set_ip_ttl HopLimit u8;
    sock_get_recv_buf_size sock_set_recv_buf_size ReceiveBuffer u32;
    sock_get_send_buf_size sock_set_send_buf_size SendBuffer u32;
    sock_get_tcp_keep_idle sock_set_tcp_keep_idle KeepAliveIdle u32;
    sock_get_tcp_keep_intvl sock_set_tcp_keep_intvl KeepAliveInterval u32;
}

/// Time limits of calls, in microseconds; 0 is none.
macro_rules! limits {
    ($($get:ident $set:ident $span:ident;)*) => {$(
        /// Writes the limit.
        ///
        /// # Errors
        /// `badf`, `notsock`; a bad address.
        pub(super) fn $get(
            ctx: &WasiCtx,
            memory: &mut GuestMemory<'_>,
            fd: u32,
            value: u32,
        ) -> Result<(), Errno> {
            let limit = with(ctx, fd, |socket| Ok(socket.time_limit(Span::$span)))?;
            let micros = limit.unwrap_or_default().as_micros();
            Ok(memory.write_u64(value, u64::try_from(micros).unwrap_or(u64::MAX))?)
        }

        /// Sets the limit.
        ///
        /// # Errors
        /// `badf`, `notsock`, `dom` for a negative one.
        pub(super) fn $set(
            ctx: &WasiCtx,
            _: &mut GuestMemory<'_>,
            fd: u32,
            micros: i64,
        ) -> Result<(), Errno> {
            let micros = u64::try_from(micros).map_err(|_| Errno::Dom)?;
            with(ctx, fd, |socket| {
                socket.set_time_limit(Span::$span, Some(Duration::from_micros(micros)));
                Ok(())
            })
        }
    )*};
}

limits! {
    sock_get_recv_timeout sock_set_recv_timeout Receive;
    sock_get_send_timeout sock_set_send_timeout Send;
}

fn multicast_loop(six: u32) -> Flag {
    if six == 0 { Flag::MulticastLoop4 } else { Flag::MulticastLoop6 }
}

/// `sock_get_ip_multicast_loop`: of IPv6 if `six` is not 0.
///
/// # Errors
/// `badf`, `notsock`, `noprotoopt`; a bad address.
pub(super) fn sock_get_ip_multicast_loop(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    six: u32,
    value: u32,
) -> Result<(), Errno> {
    let on = with(ctx, fd, |socket| Ok(socket.flag(multicast_loop(six))?))?;
    Ok(memory.write(value, [u8::from(on)])?)
}

/// `sock_set_ip_multicast_loop`: of IPv6 if `six` is not 0.
///
/// # Errors
/// `badf`, `notsock`, `noprotoopt`.
pub(super) fn sock_set_ip_multicast_loop(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    fd: u32,
    six: u32,
    value: u32,
) -> Result<(), Errno> {
    with(ctx, fd, |socket| Ok(socket.set_flag(multicast_loop(six), value != 0)?))
}

/// `sock_set_ip_add_membership`: the interface is a device's number, 0 leaves it to the host.
///
/// # Errors
/// `badf`, `notsock`, `inval` for an address that is no group's; what the host says.
pub(super) fn sock_set_ip_add_membership(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    group: u32,
    interface: u32,
) -> Result<(), Errno> {
    let group = read_ip(memory, group)?;
    with(ctx, fd, |socket| Ok(socket.set_membership(group, interface, true)?))
}

/// `sock_set_ip_drop_membership`.
///
/// # Errors
/// As `sock_set_ip_add_membership`.
pub(super) fn sock_set_ip_drop_membership(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    group: u32,
    interface: u32,
) -> Result<(), Errno> {
    let group = read_ip(memory, group)?;
    with(ctx, fd, |socket| Ok(socket.set_membership(group, interface, false)?))
}

/// `sock_get_linger`: whether closing waits, and for how many seconds.
///
/// # Errors
/// `badf`, `notsock`; a bad address.
pub(super) fn sock_get_linger(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    on: u32,
    seconds: u32,
) -> Result<(), Errno> {
    memory.check::<4>(seconds)?;
    let linger = with(ctx, fd, |socket| Ok(socket.linger()?))?;
    memory.write(on, [u8::from(linger.is_some())])?;
    Ok(memory.write_u32(seconds, linger.unwrap_or_default().as_secs() as u32)?)
}

/// `sock_set_linger`.
///
/// # Errors
/// `badf`, `notsock`, `dom` for a negative span.
pub(super) fn sock_set_linger(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    fd: u32,
    on: u32,
    seconds: u32,
) -> Result<(), Errno> {
    let span = u64::try_from(seconds.cast_signed()).map_err(|_| Errno::Dom)?;
    let linger = (on != 0).then(|| Duration::from_secs(span));
    with(ctx, fd, |socket| Ok(socket.set_linger(linger)?))
}
