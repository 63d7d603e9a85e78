//! What the dialects have in common.

use std::net::SocketAddr;

use crate::wasi::core::names::NameError;
use crate::wasi::core::object::Object;
use crate::wasi::core::socket::{Family, ReceiveOptions, Received, Socket};
use crate::wasi::core::stat::Kind;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;
use crate::wasi::preview1::descriptor::Descriptor;
use crate::wasi::preview1::errno::Errno;
use crate::wasi::preview1::rights::{Rights, needs};

/// Longest name of a host or service that is looked at, in bytes.
const MAX_TEXT: u32 = 1024;

/// `sock_listen`: a negative backlog is as many as the host allows.
///
/// # Errors
/// `badf`, `notsock`, `acces`; what the host says.
pub(super) fn sock_listen(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    fd: u32,
    backlog: u32,
) -> Result<(), Errno> {
    with(ctx, fd, |socket| Ok(socket.listen(&ctx.network, backlog.cast_signed(), ctx.stop)?))
}

/// Acts on a socket; for what needs no right of preview 1.
pub(super) fn with<T>(
    ctx: &WasiCtx,
    fd: u32,
    act: impl FnOnce(&Socket) -> Result<T, Errno>,
) -> Result<T, Errno> {
    act(ctx.descriptor(fd)?.socket(Rights::NONE)?)
}

/// Opens a socket and writes its number to `out`.
pub(super) fn open(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    family: Family,
    kind: Kind,
    out: u32,
) -> Result<(), Errno> {
    memory.check::<4>(out)?;
    let number = ctx.fds.open(|| {
        let socket = Socket::open(&ctx.network, family, kind)?;
        Ok::<_, Errno>(Descriptor::new(Object::Socket(socket)))
    })?;
    Ok(memory.write_u32(out, number)?)
}

/// Receives into a scatter list.
pub(super) fn receive(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    (list, count): (u32, u32),
    flags: u32,
) -> Result<Received, Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let socket = descriptor.socket(needs::sock_recv)?;
    if flags & !3 != 0 {
        return Err(Errno::Inval);
    }
    let options = ReceiveOptions { peek: flags & 1 != 0, wait_all: flags & 2 != 0 };
    let mut received = Received::default();
    received.bytes = memory.scatter(list, count, |buffers| {
        received = socket.receive(buffers, options)?;
        Ok::<_, Errno>(received.bytes)
    })?;
    // Of a connection the kernel does not tell the sender: there is one only.
    received.sender = received.sender.or_else(|| socket.peer_address().ok());
    Ok(received)
}

/// Sends a gather list to an address, and writes how many bytes went to `out`. No flags are defined.
pub(super) fn send_to(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    (list, count): (u32, u32),
    to: SocketAddr,
    flags: u32,
    out: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let socket = descriptor.socket(needs::sock_send)?;
    if flags != 0 {
        return Err(Errno::Inval);
    }
    memory.check::<4>(out)?;
    let sent = memory.gather(list, count, |buffers| {
        socket.send_to(&ctx.network, buffers, to).map_err(Errno::from)
    })?;
    Ok(memory.write_u32(out, sent as u32)?)
}

/// A text that ends at a NUL or after `len` bytes; `None` if it is too long for a name or no UTF-8.
pub(super) fn text(memory: &GuestMemory<'_>, at: u32, len: u32) -> Result<Option<String>, Errno> {
    let bytes = memory.bytes(at, len.min(MAX_TEXT))?;
    let end = bytes.iter().position(|byte| *byte == 0);
    if end.is_none() && len > MAX_TEXT {
        return Ok(None);
    }
    let bytes = &bytes[..end.unwrap_or(bytes.len())];
    Ok(std::str::from_utf8(bytes).ok().map(str::to_owned))
}

/// A text that a NUL ends. Address 0 is none.
pub(super) fn c_text(memory: &GuestMemory<'_>, at: u32) -> Result<Option<String>, Errno> {
    if at == 0 {
        return Ok(Some(String::new()));
    }
    let mut bytes = Vec::new();
    for place in (at..).take(MAX_TEXT as usize) {
        match memory.read(place)? {
            [0] => return Ok(String::from_utf8(bytes).ok()),
            [byte] => bytes.push(byte),
        }
    }
    Ok(None)
}

/// A failed look-up as an error number of preview 1.
pub(super) fn name_errno(error: NameError) -> Errno {
    match error {
        NameError::NoName | NameError::NoAddress => Errno::Noent,
        NameError::NoService => Errno::Inval,
        NameError::Again => Errno::Again,
        NameError::Failed => Errno::Io,
        NameError::Refused(error) => error.into(),
    }
}
