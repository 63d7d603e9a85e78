//! Reading, writing and positions; listing directories.

use rustix::fs::SeekFrom;

use super::errno::Errno;
use super::rights::needs;
use super::types;
use crate::wasi::core::listing::Entry;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;

/// Bytes of a `dirent` before the name.
const DIRENT: usize = 24;

/// `fd_read`: reads into buffers at the current position.
///
/// # Errors
/// `badf`, `isdir`, `notcapable`, `again`; a buffer outside the memory; what the host says.
pub fn fd_read(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    iovs: u32,
    iovs_len: u32,
    nread: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    // Of kinds that cannot be read, the core speaks more precisely than a missing right.
    if descriptor.object.dir().is_err() {
        descriptor.require(needs::fd_read)?;
    }
    memory.check::<4>(nread)?;
    let count = memory
        .scatter(iovs, iovs_len, |buffers| descriptor.object.read(buffers).map_err(Errno::from))?;
    Ok(memory.write_u32(nread, count as u32)?)
}

/// `fd_pread`: reads into buffers at `offset`.
///
/// # Errors
/// As for [`fd_read`], and `spipe`, `inval` for an impossible offset.
pub fn fd_pread(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    iovs: u32,
    iovs_len: u32,
    offset: u64,
    nread: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let file = descriptor.seekable(needs::fd_pread)?;
    memory.check::<4>(nread)?;
    let count = memory
        .scatter(iovs, iovs_len, |buffers| file.read_at(buffers, offset).map_err(Errno::from))?;
    Ok(memory.write_u32(nread, count as u32)?)
}

/// `fd_write`: writes buffers at the current position.
///
/// # Errors
/// `badf`, `isdir`, `notcapable`, `again`, `pipe`; a buffer outside the memory; what the host says.
pub fn fd_write(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    iovs: u32,
    iovs_len: u32,
    nwritten: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    if descriptor.object.dir().is_err() {
        descriptor.require(needs::fd_write)?;
    }
    memory.check::<4>(nwritten)?;
    let count = memory
        .gather(iovs, iovs_len, |buffers| descriptor.object.write(buffers).map_err(Errno::from))?;
    Ok(memory.write_u32(nwritten, count as u32)?)
}

/// `fd_pwrite`: writes buffers at `offset`.
///
/// # Errors
/// As for [`fd_write`], and `spipe`, `inval` for an impossible offset.
pub fn fd_pwrite(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    iovs: u32,
    iovs_len: u32,
    offset: u64,
    nwritten: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let file = descriptor.seekable(needs::fd_pwrite)?;
    memory.check::<4>(nwritten)?;
    let count = memory
        .gather(iovs, iovs_len, |buffers| file.write_at(buffers, offset).map_err(Errno::from))?;
    Ok(memory.write_u32(nwritten, count as u32)?)
}

/// `fd_seek`: moves the position; `whence` is 0 set, 1 cur, 2 end. Asking for the position without
/// moving it needs only the right to tell.
///
/// # Errors
/// `badf`, `isdir`, `spipe`, `notcapable`, `inval` for a position before the beginning.
pub fn fd_seek(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    offset: i64,
    whence: u32,
    position: u32,
) -> Result<(), Errno> {
    let to = match whence {
        0 => SeekFrom::Start(u64::try_from(offset).map_err(|_| Errno::Inval)?),
        1 => SeekFrom::Current(offset),
        2 => SeekFrom::End(offset),
        _ => return Err(Errno::Inval),
    };
    let tells = matches!(to, SeekFrom::Current(0));
    let descriptor = ctx.descriptor(fd)?;
    let rights = match tells && descriptor.require(needs::fd_tell).is_ok() {
        true => needs::fd_tell,
        false => needs::fd_seek,
    };
    let file = descriptor.seekable(rights)?;
    memory.check::<8>(position)?;
    Ok(memory.write_u64(position, file.seek(to)?)?)
}

/// `fd_tell`: the position.
///
/// # Errors
/// `badf`, `isdir`, `spipe`, `notcapable`; an address that cannot be written.
pub fn fd_tell(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    position: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let file = descriptor.seekable(needs::fd_tell)?;
    Ok(memory.write_u64(position, file.seek(SeekFrom::Current(0))?)?)
}

/// `fd_advise`: how a range will be used.
///
/// # Errors
/// `badf`, `isdir`, `notcapable`, `inval`, `spipe`.
pub fn fd_advise(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    fd: u32,
    offset: u64,
    len: u64,
    advice: u32,
) -> Result<(), Errno> {
    let advice = types::advice(advice)?;
    Ok(ctx.descriptor(fd)?.seekable(needs::fd_advise)?.advise(offset, len, advice)?)
}

/// `fd_allocate`: room on disk for a range.
///
/// # Errors
/// `badf`, `isdir`, `notcapable`, `inval`, `nospc`, `fbig`, `notsup` by the file system.
pub fn fd_allocate(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    fd: u32,
    offset: u64,
    len: u64,
) -> Result<(), Errno> {
    Ok(ctx.descriptor(fd)?.seekable(needs::fd_allocate)?.allocate(offset, len)?)
}

/// `fd_readdir`: entries after `cookie`. The last one is cut off where the buffer ends; a buffer
/// that is not full means the end of the directory.
///
/// # Errors
/// `badf`, `notdir`, `notcapable`, `inval` for an impossible cookie; a buffer outside the memory.
pub fn fd_readdir(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    buf: u32,
    buf_len: u32,
    cookie: u64,
    used: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let dir = descriptor.dir(needs::fd_readdir)?;
    memory.check::<4>(used)?;
    let filled = memory.write_with(buf, buf_len, |buffer| {
        let mut filled = 0;
        dir.list(cookie, |entry| {
            let parts = [&dirent(&entry)[..], entry.name];
            parts.iter().all(|part| {
                let room = &mut buffer[filled..];
                let fits = part.len().min(room.len());
                room[..fits].copy_from_slice(&part[..fits]);
                filled += fits;
                fits == part.len()
            })
        })?;
        Ok::<_, Errno>(filled)
    })?;
    Ok(memory.write_u32(used, filled as u32)?)
}

fn dirent(entry: &Entry<'_>) -> [u8; DIRENT] {
    let mut bytes = [0; DIRENT];
    bytes[..8].copy_from_slice(&entry.next.to_le_bytes());
    bytes[8..16].copy_from_slice(&entry.inode.to_le_bytes());
    bytes[16..20].copy_from_slice(&(entry.name.len() as u32).to_le_bytes());
    bytes[20] = types::filetype(entry.kind);
    bytes
}
