//! Sockets that were handed in, and what is accepted from them.

use rustix::net::Shutdown;

use super::descriptor::Descriptor;
use super::errno::Errno;
use super::rights::needs;
use super::types::{self, FDFLAGS_NONBLOCK};
use crate::wasi::core::object::Object;
use crate::wasi::core::socket::ReceiveOptions;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;

/// `sock_accept`: the next connection; of the flags only `nonblock` means something.
///
/// # Errors
/// `badf`, `notsock`, `notcapable`, `inval`, `again`, `mfile`; what the host says.
pub fn sock_accept(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    flags: u32,
    accepted: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let socket = descriptor.socket(needs::sock_accept)?;
    if flags & !FDFLAGS_NONBLOCK != 0 {
        return Err(Errno::Inval);
    }
    memory.check::<4>(accepted)?;
    let mode = types::mode(flags)?;
    let number = ctx.fds.open(|| {
        let connection = socket.accept(mode)?;
        Ok::<_, Errno>(Descriptor::new(Object::Socket(connection)))
    })?;
    Ok(memory.write_u32(accepted, number)?)
}

/// `sock_recv`: flags are 1 peek, 2 waitall; `roflags` gets 1 for a datagram that was cut.
///
/// # Errors
/// `badf`, `notsock`, `notcapable`, `inval`, `again`; a buffer outside the memory.
#[allow(clippy::too_many_arguments, reason = "the specification's parameters")]
pub fn sock_recv(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    ri_data: u32,
    ri_data_len: u32,
    ri_flags: u32,
    ro_datalen: u32,
    ro_flags: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let socket = descriptor.socket(needs::sock_recv)?;
    if ri_flags & !3 != 0 {
        return Err(Errno::Inval);
    }
    memory.check::<4>(ro_datalen)?;
    memory.check::<2>(ro_flags)?;
    let options = ReceiveOptions { peek: ri_flags & 1 != 0, wait_all: ri_flags & 2 != 0 };
    let mut truncated = false;
    let count = memory.scatter(ri_data, ri_data_len, |buffers| {
        let received = socket.receive(buffers, options)?;
        truncated = received.truncated;
        Ok::<_, Errno>(received.bytes)
    })?;
    memory.write_u32(ro_datalen, count as u32)?;
    Ok(memory.write(ro_flags, u16::from(truncated).to_le_bytes())?)
}

/// `sock_send`: no flags are defined.
///
/// # Errors
/// `badf`, `notsock`, `notcapable`, `inval`, `again`, `pipe`; a buffer outside the memory.
pub fn sock_send(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    si_data: u32,
    si_data_len: u32,
    si_flags: u32,
    so_datalen: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let socket = descriptor.socket(needs::sock_send)?;
    if si_flags != 0 {
        return Err(Errno::Inval);
    }
    memory.check::<4>(so_datalen)?;
    let count =
        memory.gather(si_data, si_data_len, |buffers| socket.send(buffers).map_err(Errno::from))?;
    Ok(memory.write_u32(so_datalen, count as u32)?)
}

/// `sock_shutdown`: 1 receiving, 2 sending, 3 both.
///
/// # Errors
/// `badf`, `notsock`, `notcapable`, `inval`, `notconn`.
pub fn sock_shutdown(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    fd: u32,
    how: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let socket = descriptor.socket(needs::sock_shutdown)?;
    let how = match how {
        1 => Shutdown::Read,
        2 => Shutdown::Write,
        3 => Shutdown::Both,
        _ => return Err(Errno::Inval),
    };
    Ok(socket.shutdown(how)?)
}
