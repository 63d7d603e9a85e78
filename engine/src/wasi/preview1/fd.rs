//! Descriptors as such: their state, rights, attributes and numbers.

use rustix::io::Errno as HostErrno;

use super::errno::Errno;
use super::rights::{Rights, needs};
use super::types;
use crate::wasi::core::object::Object;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;

/// `fd_close`.
///
/// # Errors
/// `badf`.
pub fn fd_close(ctx: &WasiCtx, _: &mut GuestMemory<'_>, fd: u32) -> Result<(), Errno> {
    ctx.fds.remove(fd)?;
    Ok(())
}

/// `fd_renumber`: moves a descriptor over another open one, which is closed.
///
/// # Errors
/// `badf` when either is not open.
pub fn fd_renumber(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    from: u32,
    to: u32,
) -> Result<(), Errno> {
    Ok(ctx.fds.renumber(from, to)?)
}

/// `fd_fdstat_get`: type, flags and rights.
///
/// # Errors
/// `badf`; an address that cannot be written.
pub fn fd_fdstat_get(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    stat: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let mut bytes = [0; 24];
    bytes[0] = types::filetype(descriptor.object.kind());
    bytes[2..4].copy_from_slice(&types::fdflags(descriptor.object.mode()).to_le_bytes());
    let (base, inheriting) = descriptor.rights();
    bytes[8..16].copy_from_slice(&base.bits().to_le_bytes());
    bytes[16..24].copy_from_slice(&inheriting.bits().to_le_bytes());
    Ok(memory.write_struct(stat, 8, &bytes)?)
}

/// `fd_fdstat_set_flags`.
///
/// # Errors
/// `badf`, `notcapable`, `inval` for unknown flags.
pub fn fd_fdstat_set_flags(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    fd: u32,
    flags: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    descriptor.require(needs::fd_fdstat_set_flags)?;
    descriptor.object.set_mode(types::mode(flags)?);
    Ok(())
}

/// `fd_fdstat_set_rights`: gives rights up; none can be gained.
///
/// # Errors
/// `badf`, `notcapable` for a right that the descriptor does not have.
pub fn fd_fdstat_set_rights(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    fd: u32,
    base: u64,
    inheriting: u64,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    descriptor.keep_rights(Rights::from_bits(base), Rights::from_bits(inheriting))
}

/// `fd_filestat_get`: attributes.
///
/// # Errors
/// `badf`, `notcapable`; an address that cannot be written.
pub fn fd_filestat_get(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    stat: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    descriptor.require(needs::fd_filestat_get)?;
    types::write_filestat(memory, stat, &descriptor.object.stat()?)
}

/// `fd_filestat_set_size`: cuts or extends a file.
///
/// # Errors
/// `badf`, `isdir`, `notcapable` (also for a file that is not open for writing), `inval`.
pub fn fd_filestat_set_size(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    fd: u32,
    size: u64,
) -> Result<(), Errno> {
    Ok(ctx.descriptor(fd)?.file(needs::fd_filestat_set_size)?.set_size(size)?)
}

/// `fd_filestat_set_times`: access and modification times, in nanoseconds since 1970.
///
/// # Errors
/// `badf`, `notcapable`, `rofs`, `inval` for contradictory flags.
pub fn fd_filestat_set_times(
    ctx: &WasiCtx,
    _: &mut GuestMemory<'_>,
    fd: u32,
    accessed: u64,
    modified: u64,
    flags: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    descriptor.require(needs::fd_filestat_set_times)?;
    let times = types::new_times(accessed, modified, flags)?;
    match &descriptor.object {
        Object::File(file) => Ok(file.set_times(times)?),
        Object::Dir(dir) => Ok(dir.set_times(times)?),
        Object::Socket(_) => Err(Errno::Inval),
    }
}

/// `fd_sync`: data and attributes to disk.
///
/// # Errors
/// `badf`, `notcapable`, `inval` for what has no disk; what the disk says.
pub fn fd_sync(ctx: &WasiCtx, _: &mut GuestMemory<'_>, fd: u32) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    descriptor.require(needs::fd_sync)?;
    match &descriptor.object {
        Object::File(file) => Ok(file.sync()?),
        Object::Dir(dir) => Ok(dir.sync()?),
        Object::Socket(_) => Err(HostErrno::INVAL.into()),
    }
}

/// `fd_datasync`: data to disk.
///
/// # Errors
/// As for [`fd_sync`].
pub fn fd_datasync(ctx: &WasiCtx, _: &mut GuestMemory<'_>, fd: u32) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    descriptor.require(needs::fd_datasync)?;
    match &descriptor.object {
        Object::File(file) => Ok(file.data_sync()?),
        Object::Dir(dir) => Ok(dir.sync()?),
        Object::Socket(_) => Err(HostErrno::INVAL.into()),
    }
}

/// `fd_prestat_get`: tells that a descriptor is a preopened directory, and its name's length.
///
/// # Errors
/// `badf` for anything else; an address that cannot be written.
pub fn fd_prestat_get(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    prestat: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let name = descriptor.preopen.as_deref().ok_or(Errno::Badf)?;
    let mut bytes = [0; 8];
    bytes[4..].copy_from_slice(&(name.len() as u32).to_le_bytes());
    Ok(memory.write_struct(prestat, 4, &bytes)?)
}

/// `fd_prestat_dir_name`: the name of a preopened directory, without a NUL.
///
/// # Errors
/// `badf`, `nametoolong` for a buffer that is too short; an address that cannot be written.
pub fn fd_prestat_dir_name(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    path: u32,
    path_len: u32,
) -> Result<(), Errno> {
    let descriptor = ctx.descriptor(fd)?;
    let name = descriptor.preopen.as_deref().ok_or(Errno::Badf)?;
    if (path_len as usize) < name.len() {
        return Err(Errno::Nametoolong);
    }
    Ok(memory.write_bytes(path, name)?)
}
