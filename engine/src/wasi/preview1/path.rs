//! Paths: opening and changing what lies beneath a directory.

use std::borrow::Cow;

use super::descriptor::Descriptor;
use super::errno::Errno;
use super::rights::{Rights, needs};
use super::types::{self, OpenFlags};
use crate::wasi::core::dir::OpenOptions;
use crate::wasi::core::file::Access;
use crate::wasi::ctx::WasiCtx;
use crate::wasi::guest_mem::GuestMemory;

/// Longest path in bytes (`PATH_MAX` without the NUL).
const MAX_PATH: u32 = 4095;

/// A path as the guest gives it: UTF-8 by the specification.
fn path<'m>(memory: &'m GuestMemory<'_>, address: u32, len: u32) -> Result<Cow<'m, [u8]>, Errno> {
    if len > MAX_PATH {
        return Err(Errno::Nametoolong);
    }
    let bytes = memory.bytes(address, len)?;
    std::str::from_utf8(&bytes).map_err(|_| Errno::Ilseq)?;
    Ok(bytes)
}

/// `path_create_directory`.
///
/// # Errors
/// `badf`, `notdir`, `notcapable`, `perm` for a path that leads out, `rofs`; what the host says.
pub fn path_create_directory(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    address: u32,
    len: u32,
) -> Result<(), Errno> {
    let dir = ctx.descriptor(fd)?;
    let dir = dir.dir(needs::path_create_directory)?;
    Ok(dir.create_dir(&path(memory, address, len)?)?)
}

/// `path_remove_directory`.
///
/// # Errors
/// As for [`path_create_directory`], and `notempty`.
pub fn path_remove_directory(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    address: u32,
    len: u32,
) -> Result<(), Errno> {
    let dir = ctx.descriptor(fd)?;
    let dir = dir.dir(needs::path_remove_directory)?;
    Ok(dir.remove_dir(&path(memory, address, len)?)?)
}

/// `path_unlink_file`.
///
/// # Errors
/// As for [`path_create_directory`], and `isdir`.
pub fn path_unlink_file(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    address: u32,
    len: u32,
) -> Result<(), Errno> {
    let dir = ctx.descriptor(fd)?;
    let dir = dir.dir(needs::path_unlink_file)?;
    Ok(dir.remove_file(&path(memory, address, len)?)?)
}

/// `path_filestat_get`: attributes.
///
/// # Errors
/// `badf`, `notdir`, `notcapable`, `perm` for a path that leads out; what the host says.
pub fn path_filestat_get(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    flags: u32,
    address: u32,
    len: u32,
    stat: u32,
) -> Result<(), Errno> {
    let dir = ctx.descriptor(fd)?;
    let dir = dir.dir(needs::path_filestat_get)?;
    let found = dir.stat_at(&path(memory, address, len)?, types::follow(flags)?)?;
    types::write_filestat(memory, stat, &found)
}

/// `path_filestat_set_times`: access and modification times, in nanoseconds since 1970.
///
/// # Errors
/// As for [`path_create_directory`], and `inval` for contradictory flags.
#[allow(clippy::too_many_arguments, reason = "the specification's parameters")]
pub fn path_filestat_set_times(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    flags: u32,
    address: u32,
    len: u32,
    accessed: u64,
    modified: u64,
    time_flags: u32,
) -> Result<(), Errno> {
    let dir = ctx.descriptor(fd)?;
    let dir = dir.dir(needs::path_filestat_set_times)?;
    let times = types::new_times(accessed, modified, time_flags)?;
    Ok(dir.set_times_at(&path(memory, address, len)?, types::follow(flags)?, times)?)
}

/// `path_link`: another name for a file. Following a symbolic link at the old path is refused: the
/// kernel has no call for it that stays beneath the directory.
///
/// # Errors
/// As for [`path_create_directory`], and `inval` for following, `perm` for directories, `xdev`.
#[allow(clippy::too_many_arguments, reason = "the specification's parameters")]
pub fn path_link(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    old_fd: u32,
    old_flags: u32,
    old_address: u32,
    old_len: u32,
    new_fd: u32,
    new_address: u32,
    new_len: u32,
) -> Result<(), Errno> {
    let source = ctx.descriptor(old_fd)?;
    let source = source.dir(needs::path_link_source)?;
    let target = ctx.descriptor(new_fd)?;
    let target = target.dir(needs::path_link_target)?;
    if types::follow(old_flags)? {
        return Err(Errno::Inval);
    }
    let old = path(memory, old_address, old_len)?;
    Ok(source.link(&old, target, &path(memory, new_address, new_len)?)?)
}

/// `path_rename`.
///
/// # Errors
/// As for [`path_create_directory`], and `xdev`, `notempty`, `isdir`, `busy`.
#[allow(clippy::too_many_arguments, reason = "the specification's parameters")]
pub fn path_rename(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    old_fd: u32,
    old_address: u32,
    old_len: u32,
    new_fd: u32,
    new_address: u32,
    new_len: u32,
) -> Result<(), Errno> {
    let source = ctx.descriptor(old_fd)?;
    let source = source.dir(needs::path_rename_source)?;
    let target = ctx.descriptor(new_fd)?;
    let target = target.dir(needs::path_rename_target)?;
    let old = path(memory, old_address, old_len)?;
    Ok(source.rename(&old, target, &path(memory, new_address, new_len)?)?)
}

/// `path_symlink`: a link at the new path that holds the old one.
///
/// # Errors
/// As for [`path_create_directory`]; `perm` also for absolute content.
pub fn path_symlink(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    old_address: u32,
    old_len: u32,
    fd: u32,
    new_address: u32,
    new_len: u32,
) -> Result<(), Errno> {
    let dir = ctx.descriptor(fd)?;
    let dir = dir.dir(needs::path_symlink)?;
    let content = path(memory, old_address, old_len)?;
    Ok(dir.symlink(&content, &path(memory, new_address, new_len)?)?)
}

/// `path_readlink`: a link's content; what does not fit is cut off.
///
/// # Errors
/// As for [`path_filestat_get`], and `inval` for anything but a link.
#[allow(clippy::too_many_arguments, reason = "the specification's parameters")]
pub fn path_readlink(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    address: u32,
    len: u32,
    buf: u32,
    buf_len: u32,
    used: u32,
) -> Result<(), Errno> {
    let dir = ctx.descriptor(fd)?;
    let dir = dir.dir(needs::path_readlink)?;
    memory.check::<4>(used)?;
    // The path and the buffer may overlap; a link's content is no longer than a path.
    let mut content = [0; MAX_PATH as usize + 1];
    let room = buf_len.min(content.len() as u32) as usize;
    let count = dir.read_link(&path(memory, address, len)?, &mut content[..room])?;
    memory.write_bytes(buf, &content[..count])?;
    Ok(memory.write_u32(used, count as u32)?)
}

/// `path_open`: opens or creates a file or directory. It is opened for reading and writing as far
/// as `base` holds the rights to read and write. Rights that its kind cannot have are dropped.
///
/// # Errors
/// As for [`path_create_directory`], and `notcapable` for rights that the directory does not hand
/// on, `mfile`, `loop` for a link that is not followed, `isdir`, `nxio`.
#[allow(clippy::too_many_arguments, reason = "the specification's parameters")]
pub fn path_open(
    ctx: &WasiCtx,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    dirflags: u32,
    address: u32,
    len: u32,
    oflags: u32,
    base: u64,
    inheriting: u64,
    fdflags: u32,
    opened: u32,
) -> Result<(), Errno> {
    let (base, inheriting) = (Rights::from_bits(base), Rights::from_bits(inheriting));
    let open = OpenFlags::new(oflags)?;
    let options = OpenOptions {
        access: Access {
            read: base.contains(Rights::FD_READ),
            write: base.contains(Rights::FD_WRITE),
        },
        follow: types::follow(dirflags)?,
        create: open.create,
        exclusive: open.exclusive,
        truncate: open.truncate,
        directory: open.directory,
        mode: types::mode(fdflags)?,
    };
    let (needed, handed_on) = rights_to_open(&options, base | inheriting);
    let descriptor = ctx.descriptor(fd)?;
    let dir = descriptor.dir(needed)?;
    if !descriptor.rights().1.contains(handed_on) {
        return Err(Errno::Notcapable);
    }
    memory.check::<4>(opened)?;
    let path = path(memory, address, len)?;
    let number = ctx.fds.open(|| {
        let object = dir.open(&path, &options)?;
        Ok::<_, Errno>(Descriptor::restricted(object, base, inheriting))
    })?;
    Ok(memory.write_u32(opened, number)?)
}

/// What the directory must hold, and what it must hand on, for this way to open.
fn rights_to_open(options: &OpenOptions, asked: Rights) -> (Rights, Rights) {
    let when = |condition: bool, rights| if condition { rights } else { Rights::NONE };
    let mode = options.mode;
    let needed = needs::path_open
        | when(options.create, needs::path_open_creating)
        | when(options.truncate, needs::path_open_truncating);
    let handed_on = asked
        | when(mode.data_sync, Rights::FD_DATASYNC)
        | when(mode.sync || mode.read_sync, Rights::FD_SYNC);
    (needed, handed_on)
}
