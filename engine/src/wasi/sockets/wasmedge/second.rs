//! Functions of the second generation.

use std::net::SocketAddr;

use super::address::Place;
use crate::wasi::core::error::Result as CoreResult;
use crate::wasi::core::socket::Socket;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;
use crate::wasi::preview1::errno::Errno;
use crate::wasi::sockets::common::{self, with};

/// `sock_recv_from`. The port is written in the host's order, as the clients read it.
///
/// # Errors
/// As `sock_recv`; `inval` for an address buffer that is too short.
#[allow(clippy::too_many_arguments, reason = "the dialect's parameters")]
pub(super) fn sock_recv_from(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    data: u32,
    data_len: u32,
    addr: u32,
    flags: u32,
    port: u32,
    received: u32,
    received_flags: u32,
) -> Result<(), Errno> {
    let family = with(ctx, fd, |socket| Ok(socket.family()?))?;
    let place = Place::read(memory, addr)?.fits(family)?;
    memory.check::<4>(port)?;
    memory.check::<4>(received)?;
    memory.check::<2>(received_flags)?;
    let got = common::receive(ctx, memory, fd, (data, data_len), flags)?;
    if let Some(sender) = got.sender {
        place.write(memory, sender.ip())?;
        memory.write_u32(port, sender.port().into())?;
    }
    memory.write_u32(received, got.bytes as u32)?;
    Ok(memory.write(received_flags, u16::from(got.truncated).to_le_bytes())?)
}

/// `sock_getlocaladdr`.
///
/// # Errors
/// `badf`, `notsock`, `inval` unless the buffer is a storage.
pub(super) fn sock_getlocaladdr(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    addr: u32,
    port: u32,
) -> Result<(), Errno> {
    address(ctx, memory, fd, addr, port, Socket::local_address)
}

/// `sock_getpeeraddr`.
///
/// # Errors
/// `badf`, `notsock`, `notconn`, `inval` unless the buffer is a storage.
pub(super) fn sock_getpeeraddr(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    addr: u32,
    port: u32,
) -> Result<(), Errno> {
    address(ctx, memory, fd, addr, port, Socket::peer_address)
}

fn address(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    addr: u32,
    port: u32,
    of: fn(&Socket) -> CoreResult<SocketAddr>,
) -> Result<(), Errno> {
    let place = Place::read(memory, addr)?.storage()?;
    memory.check::<4>(port)?;
    let address = with(ctx, fd, |socket| Ok(of(socket)?))?;
    place.write(memory, address.ip())?;
    Ok(memory.write_u32(port, address.port().into())?)
}
