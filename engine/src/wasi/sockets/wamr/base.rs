//! Making and using sockets.

use super::address;
use crate::wasi::core::stat::Kind;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;
use crate::wasi::preview1::errno::Errno;
use crate::wasi::preview1::fd;
use crate::wasi::sockets::common::{self, with};

/// `sock_open`: kinds are 0 datagram, 1 stream. There is one pool of addresses, the policy.
///
/// # Errors
/// `acces`, `afnosupport`, `inval`, `mfile`; a bad address.
pub(super) fn sock_open(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    _pool: u32,
    family: u32,
    kind: u32,
    opened: u32,
) -> Result<(), Errno> {
    let kind = match kind {
        0 => Kind::DatagramSocket,
        1 => Kind::StreamSocket,
        _ => return Err(Errno::Inval),
    };
    common::open(ctx, memory, address::family(family)?, kind, opened)
}

/// `sock_close`.
///
/// # Errors
/// `badf`, `notsock`.
pub(super) fn sock_close(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    number: u32,
) -> Result<(), Errno> {
    with(ctx, number, |_| Ok(()))?;
    fd::fd_close(ctx, memory, number)
}

/// `sock_bind`.
///
/// # Errors
/// `badf`, `notsock`, `acces`, `afnosupport`; what the host says.
pub(super) fn sock_bind(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    addr: u32,
) -> Result<(), Errno> {
    let at = address::read(memory, addr)?;
    with(ctx, fd, |socket| Ok(socket.bind(&ctx.network, at)?))
}

/// `sock_connect`.
///
/// # Errors
/// `badf`, `notsock`, `acces`, `afnosupport`, `inprogress`; what the host says.
pub(super) fn sock_connect(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    addr: u32,
) -> Result<(), Errno> {
    let to = address::read(memory, addr)?;
    with(ctx, fd, |socket| Ok(socket.connect(&ctx.network, to)?))
}

/// `sock_addr_local`.
///
/// # Errors
/// `badf`, `notsock`; a bad address.
pub(super) fn sock_addr_local(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    addr: u32,
) -> Result<(), Errno> {
    let local = with(ctx, fd, |socket| Ok(socket.local_address()?))?;
    address::write(memory, addr, local)
}

/// `sock_addr_remote`.
///
/// # Errors
/// `badf`, `notsock`, `notconn`; a bad address.
pub(super) fn sock_addr_remote(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    addr: u32,
) -> Result<(), Errno> {
    let peer = with(ctx, fd, |socket| Ok(socket.peer_address()?))?;
    address::write(memory, addr, peer)
}

/// `sock_recv_from`. What of a datagram does not fit is lost without a word.
///
/// # Errors
/// As `sock_recv`.
#[allow(clippy::too_many_arguments, reason = "the dialect's parameters")]
pub(super) fn sock_recv_from(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    data: u32,
    data_len: u32,
    flags: u32,
    addr: u32,
    received: u32,
) -> Result<(), Errno> {
    address::check(memory, addr)?;
    memory.check::<4>(received)?;
    let got = common::receive(ctx, memory, fd, (data, data_len), flags)?;
    if let Some(sender) = got.sender {
        address::write(memory, addr, sender)?;
    }
    Ok(memory.write_u32(received, got.bytes as u32)?)
}

/// `sock_send_to`.
///
/// # Errors
/// As `sock_send`; `acces`, `afnosupport`.
#[allow(clippy::too_many_arguments, reason = "the dialect's parameters")]
pub(super) fn sock_send_to(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    data: u32,
    data_len: u32,
    flags: u32,
    addr: u32,
    sent: u32,
) -> Result<(), Errno> {
    let to = address::read(memory, addr)?;
    common::send_to(ctx, memory, fd, (data, data_len), to, flags, sent)
}
