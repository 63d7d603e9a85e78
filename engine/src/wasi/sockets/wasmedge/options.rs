//! `sock_getsockopt` and `sock_setsockopt`: options of level 0 (`SOL_SOCKET`) by number. Values are
//! four bytes, except times (seconds and microseconds, 16 bytes), linger (8) and a device's name.

use std::time::Duration;

use crate::wasi::core::socket::{Flag, Number, Socket, Span};
use crate::wasi::core::stat::Kind;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;
use crate::wasi::preview1::errno::Errno;
use crate::wasi::sockets::common::with;

/// An address of a length lies above this; Go's client passes the length itself, and linkers leave
/// the first KiB unused.
const FIRST_ADDRESS: u32 = 1024;
/// Longest value that is read: a device's name, with room to spare.
const MAX_VALUE: u32 = 64;
/// Microseconds of a second.
const MICROS: u64 = 1_000_000;

/// An option.
#[derive(Clone, Copy, Debug)]
enum Name {
    Flag(Flag),
    Number(Number),
    Time(Span),
    Kind,
    Error,
    Linger,
    LowMark,
    Accepts,
    Device,
}

fn name(level: u32, number: u32) -> Result<Name, Errno> {
    if level != 0 {
        return Err(Errno::Noprotoopt);
    }
    Ok(match number {
        0 => Name::Flag(Flag::ReuseAddress),
        1 => Name::Kind,
        2 => Name::Error,
        3 => Name::Flag(Flag::DontRoute),
        4 => Name::Flag(Flag::Broadcast),
        5 => Name::Number(Number::SendBuffer),
        6 => Name::Number(Number::ReceiveBuffer),
        7 => Name::Flag(Flag::KeepAlive),
        8 => Name::Flag(Flag::OutOfBandInline),
        9 => Name::Linger,
        10 => Name::LowMark,
        11 => Name::Time(Span::Receive),
        12 => Name::Time(Span::Send),
        13 => Name::Accepts,
        14 => Name::Device,
        _ => return Err(Errno::Noprotoopt),
    })
}

/// `sock_getsockopt`: `len` is the address of the value's length, or the length itself.
///
/// # Errors
/// `badf`, `notsock`, `noprotoopt`, `inval` for too little room; a bad address.
pub(super) fn sock_getsockopt(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    level: u32,
    number: u32,
    value: u32,
    len: u32,
) -> Result<(), Errno> {
    let name = name(level, number)?;
    let room = if len < FIRST_ADDRESS { len } else { memory.read_u32(len)? };
    memory.bytes(value, room.min(MAX_VALUE))?;
    let bytes = with(ctx, fd, |socket| get(socket, name))?;
    // A device's name may have more room than it needs, and so may everything else.
    if (room as usize) < bytes.len() {
        return Err(Errno::Inval);
    }
    memory.write_bytes(value, &bytes)?;
    if len >= FIRST_ADDRESS {
        memory.write_u32(len, bytes.len() as u32)?;
    }
    Ok(())
}

fn get(socket: &Socket, name: Name) -> Result<Vec<u8>, Errno> {
    let word = |value: u32| value.to_le_bytes().to_vec();
    Ok(match name {
        Name::Flag(flag) => word(socket.flag(flag)?.into()),
        Name::Number(number) => word(socket.number(number)?),
        Name::Time(span) => {
            let limit = socket.time_limit(span).unwrap_or_default();
            let micros = u64::from(limit.subsec_micros());
            [limit.as_secs().to_le_bytes(), micros.to_le_bytes()].concat()
        }
        Name::Kind => word(if socket.kind() == Kind::DatagramSocket { 1 } else { 2 }),
        Name::Error => word(socket.take_error()?.map_or(0, |error| Errno::from(error) as u32)),
        Name::Linger => {
            let linger = socket.linger()?;
            let seconds = linger.unwrap_or_default().as_secs() as u32;
            [u32::from(linger.is_some()).to_le_bytes(), seconds.to_le_bytes()].concat()
        }
        // Nothing but the host's default can be set.
        Name::LowMark => word(1),
        Name::Accepts => word(socket.is_listening().into()),
        Name::Device => {
            let mut name = socket.device()?;
            if !name.is_empty() {
                name.push(0);
            }
            name
        }
    })
}

/// `sock_setsockopt`.
///
/// # Errors
/// `badf`, `notsock`, `noprotoopt` also for what can only be asked, `inval` for a value that is too
/// short or out of range, `perm`; a bad address.
pub(super) fn sock_setsockopt(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    level: u32,
    number: u32,
    value: u32,
    len: u32,
) -> Result<(), Errno> {
    let name = name(level, number)?;
    if len > MAX_VALUE {
        return Err(Errno::Inval);
    }
    let bytes = memory.bytes(value, len)?;
    with(ctx, fd, |socket| set(socket, name, &bytes))
}

fn set(socket: &Socket, name: Name, value: &[u8]) -> Result<(), Errno> {
    let word = |at: usize| {
        let bytes = value.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|bytes| i32::from_le_bytes(*bytes)).ok_or(Errno::Inval)
    };
    match name {
        Name::Flag(flag) => socket.set_flag(flag, word(0)? != 0)?,
        Name::Number(number) => {
            let value = u32::try_from(word(0)?).map_err(|_| Errno::Inval)?;
            socket.set_number(number, value)?;
        }
        Name::Time(span) => socket.set_time_limit(span, Some(time(value)?)),
        Name::Linger => {
            let seconds = u64::try_from(word(4)?).map_err(|_| Errno::Inval)?;
            socket.set_linger((word(0)? != 0).then(|| Duration::from_secs(seconds)))?;
        }
        Name::LowMark if word(0)? == 1 => {}
        Name::Device => {
            let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
            socket.set_device(&value[..end])?;
        }
        Name::LowMark | Name::Kind | Name::Error | Name::Accepts => return Err(Errno::Noprotoopt),
    }
    Ok(())
}

/// Seconds, then microseconds, which guests declare with 4 or 8 bytes.
fn time(value: &[u8]) -> Result<Duration, Errno> {
    let (Some(seconds), Some(micros)) =
        (value.first_chunk::<8>(), value.get(8..).and_then(|rest| rest.first_chunk::<4>()))
    else {
        return Err(Errno::Inval);
    };
    let seconds = u64::try_from(i64::from_le_bytes(*seconds)).map_err(|_| Errno::Dom)?;
    let micros = u64::from(u32::from_le_bytes(*micros));
    if micros >= MICROS {
        return Err(Errno::Dom);
    }
    Ok(Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros)))
}
