//! Functions whose types are the same in both generations.

use super::address::{family, socket_address};
use crate::wasi::core::stat::Kind;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;
use crate::wasi::preview1::errno::Errno;
use crate::wasi::preview1::poll;
use crate::wasi::sockets::common::{self, with};

/// `sock_open`: kinds are 1 datagram, 2 stream; 0 means any, and is a stream.
///
/// # Errors
/// `acces`, `afnosupport`, `nosys` for paths of the host, `inval`, `mfile`; a bad address.
pub(super) fn sock_open(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    family_number: u32,
    kind: u32,
    opened: u32,
) -> Result<(), Errno> {
    let kind = match kind {
        1 => Kind::DatagramSocket,
        0 | 2 => Kind::StreamSocket,
        _ => return Err(Errno::Inval),
    };
    common::open(ctx, memory, family(family_number)?, kind, opened)
}

/// `sock_bind`.
///
/// # Errors
/// `badf`, `notsock`, `acces`, `inval`; what the host says.
pub(super) fn sock_bind(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    addr: u32,
    port: u32,
) -> Result<(), Errno> {
    let at = socket_address(memory, addr, port)?;
    with(ctx, fd, |socket| Ok(socket.bind(&ctx.network, at)?))
}

/// `sock_connect`.
///
/// # Errors
/// `badf`, `notsock`, `acces`, `inval`, `inprogress`; what the host says.
pub(super) fn sock_connect(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    addr: u32,
    port: u32,
) -> Result<(), Errno> {
    let to = socket_address(memory, addr, port)?;
    with(ctx, fd, |socket| Ok(socket.connect(&ctx.network, to)?))
}

/// `sock_send_to`.
///
/// # Errors
/// `badf`, `notsock`, `notcapable`, `acces`, `inval`, `again`; a buffer outside the memory.
#[allow(clippy::too_many_arguments, reason = "the dialect's parameters")]
pub(super) fn sock_send_to(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    data: u32,
    data_len: u32,
    addr: u32,
    port: u32,
    flags: u32,
    sent: u32,
) -> Result<(), Errno> {
    let to = socket_address(memory, addr, port)?;
    common::send_to(ctx, memory, fd, (data, data_len), to, flags, sent)
}

/// `epoll_oneoff`: as `poll_oneoff`. A descriptor stays ready for as long as it is, which programs
/// made for edges take for several edges.
///
/// # Errors
/// As `poll_oneoff`.
pub(super) fn epoll_oneoff(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    happened: u32,
) -> Result<(), Errno> {
    poll::poll_oneoff(ctx, memory, subscriptions, events, count, happened)
}
