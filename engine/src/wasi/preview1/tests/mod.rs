//! Every function of preview 1 against real scratch directories, without a runtime.

mod exhaustion;
mod fd;
mod file;
mod hostile;
mod path;
mod poll;
mod process;
mod race;
mod rights;
mod sock;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::errno::Errno;
use super::rights::Rights;
use super::{fd as fds, file as files, path as paths};
use crate::wasi::ctx::{WasiCtx, WasiCtxBuilder};
use crate::wasi::guest_mem::GuestMemory;

/// The scratch directory's descriptor.
const ROOT: u32 = 3;
const FOLLOW: u32 = 1;
const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;
const ALL: u64 = u64::MAX;

/// A guest without code: a context, a memory of one page, a scratch directory as descriptor 3.
struct Guest {
    ctx: WasiCtx,
    memory: Vec<u8>,
    free: u32,
    dir: tempfile::TempDir,
}

fn open_dir(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

impl Guest {
    fn new() -> Guest {
        Guest::with(|_| {})
    }

    fn with(grants: impl FnOnce(&mut WasiCtxBuilder)) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut builder = WasiCtxBuilder::new();
        builder.preopen(open_dir(&root), "/", false);
        grants(&mut builder);
        Guest { ctx: builder.build().unwrap(), memory: vec![0; 65536], free: 4096, dir }
    }

    /// The same directory granted for reading only.
    fn read_only(fill: impl FnOnce(&Path)) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fill(&root);
        let mut builder = WasiCtxBuilder::new();
        builder.preopen(open_dir(&root), "/", true);
        Guest { ctx: builder.build().unwrap(), memory: vec![0; 65536], free: 4096, dir }
    }

    /// A path of the host in the scratch directory.
    fn host(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn call<R>(&mut self, call: impl FnOnce(&WasiCtx, &mut GuestMemory<'_>) -> R) -> R {
        call(&self.ctx, &mut GuestMemory::new(&mut self.memory))
    }

    /// Room for `len` bytes, aligned for anything.
    fn room(&mut self, len: usize) -> u32 {
        let at = self.free;
        self.free += len.next_multiple_of(8) as u32;
        if self.free > 60_000 {
            self.free = 4096;
        }
        at
    }

    fn put(&mut self, bytes: &[u8]) -> (u32, u32) {
        let at = self.room(bytes.len());
        self.memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
        (at, bytes.len() as u32)
    }

    /// An iovec list of one buffer of `len` bytes at the returned second address.
    fn iovec(&mut self, bytes: &[u8]) -> (u32, u32) {
        let (buffer, len) = self.put(bytes);
        let vector = [buffer.to_le_bytes(), len.to_le_bytes()].concat();
        (self.put(&vector).0, buffer)
    }

    fn u32_at(&self, at: u32) -> u32 {
        u32::from_le_bytes(self.memory[at as usize..][..4].try_into().unwrap())
    }

    fn u64_at(&self, at: u32) -> u64 {
        u64::from_le_bytes(self.memory[at as usize..][..8].try_into().unwrap())
    }

    fn open_full(
        &mut self,
        dir: u32,
        lookup: u32,
        path: &str,
        oflags: u32,
        rights: (u64, u64),
        fdflags: u32,
    ) -> Result<u32, Errno> {
        let (at, len) = self.put(path.as_bytes());
        let out = self.room(4);
        let (base, inheriting) = rights;
        self.call(|c, m| {
            paths::path_open(c, m, dir, lookup, at, len, oflags, base, inheriting, fdflags, out)
        })?;
        Ok(self.u32_at(out))
    }

    /// Opens with all rights, not following a last link.
    fn open(&mut self, path: &str, oflags: u32) -> Result<u32, Errno> {
        self.open_full(ROOT, 0, path, oflags, (ALL, ALL), 0)
    }

    /// Opens for reading.
    fn open_read(&mut self, path: &str) -> Result<u32, Errno> {
        let rights = !Rights::FD_WRITE.bits();
        self.open_full(ROOT, FOLLOW, path, 0, (rights, rights), 0)
    }

    fn write(&mut self, fd: u32, bytes: &[u8]) -> Result<u32, Errno> {
        let (list, _) = self.iovec(bytes);
        let out = self.room(4);
        self.call(|c, m| files::fd_write(c, m, fd, list, 1, out))?;
        Ok(self.u32_at(out))
    }

    fn read(&mut self, fd: u32, len: usize) -> Result<Vec<u8>, Errno> {
        let (list, buffer) = self.iovec(&vec![0; len]);
        let out = self.room(4);
        self.call(|c, m| files::fd_read(c, m, fd, list, 1, out))?;
        let count = self.u32_at(out) as usize;
        Ok(self.memory[buffer as usize..][..count].to_vec())
    }

    fn seek(&mut self, fd: u32, offset: i64, whence: u32) -> Result<u64, Errno> {
        let out = self.room(8);
        self.call(|c, m| files::fd_seek(c, m, fd, offset, whence, out))?;
        Ok(self.u64_at(out))
    }

    fn close(&mut self, fd: u32) -> Result<(), Errno> {
        self.call(|c, m| fds::fd_close(c, m, fd))
    }

    fn drop_rights(&mut self, fd: u32, rights: Rights) {
        let (base, inheriting) = self.rights(fd);
        self.call(|c, m| {
            let base = (base & !rights).bits();
            fds::fd_fdstat_set_rights(c, m, fd, base, inheriting.bits())
        })
        .unwrap();
    }

    /// The bytes of an `fdstat`.
    fn fdstat(&mut self, fd: u32) -> Result<Vec<u8>, Errno> {
        let out = self.room(24);
        self.call(|c, m| fds::fd_fdstat_get(c, m, fd, out))?;
        Ok(self.memory[out as usize..][..24].to_vec())
    }

    fn rights(&mut self, fd: u32) -> (Rights, Rights) {
        let stat = self.fdstat(fd).unwrap();
        let word = |at: usize| u64::from_le_bytes(stat[at..at + 8].try_into().unwrap());
        (Rights::from_bits(word(8)), Rights::from_bits(word(16)))
    }

    /// The words of a `filestat`: dev, ino, type, nlink, size, atim, mtim, ctim.
    fn filestat(&mut self, fd: u32) -> Result<Vec<u64>, Errno> {
        let out = self.room(64);
        self.call(|c, m| fds::fd_filestat_get(c, m, fd, out))?;
        Ok((0..8).map(|n| self.u64_at(out + 8 * n)).collect())
    }

    fn path_filestat(&mut self, path: &str, lookup: u32) -> Result<Vec<u64>, Errno> {
        let (at, len) = self.put(path.as_bytes());
        let out = self.room(64);
        self.call(|c, m| paths::path_filestat_get(c, m, ROOT, lookup, at, len, out))?;
        Ok((0..8).map(|n| self.u64_at(out + 8 * n)).collect())
    }

    fn mkdir(&mut self, path: &str) -> Result<(), Errno> {
        let (at, len) = self.put(path.as_bytes());
        self.call(|c, m| paths::path_create_directory(c, m, ROOT, at, len))
    }

    fn rmdir(&mut self, path: &str) -> Result<(), Errno> {
        let (at, len) = self.put(path.as_bytes());
        self.call(|c, m| paths::path_remove_directory(c, m, ROOT, at, len))
    }

    fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        let (at, len) = self.put(path.as_bytes());
        self.call(|c, m| paths::path_unlink_file(c, m, ROOT, at, len))
    }

    fn rename(&mut self, old: &str, new: &str) -> Result<(), Errno> {
        self.rename_at(ROOT, old, ROOT, new)
    }

    fn rename_at(&mut self, from: u32, old: &str, to: u32, new: &str) -> Result<(), Errno> {
        let ((o, ol), (n, nl)) = (self.put(old.as_bytes()), self.put(new.as_bytes()));
        self.call(|c, m| paths::path_rename(c, m, from, o, ol, to, n, nl))
    }

    fn link(&mut self, lookup: u32, old: &str, new: &str) -> Result<(), Errno> {
        self.link_at(ROOT, lookup, old, ROOT, new)
    }

    fn link_at(
        &mut self,
        from: u32,
        lookup: u32,
        old: &str,
        to: u32,
        new: &str,
    ) -> Result<(), Errno> {
        let ((o, ol), (n, nl)) = (self.put(old.as_bytes()), self.put(new.as_bytes()));
        self.call(|c, m| paths::path_link(c, m, from, lookup, o, ol, to, n, nl))
    }

    fn symlink(&mut self, content: &str, path: &str) -> Result<(), Errno> {
        let ((o, ol), (n, nl)) = (self.put(content.as_bytes()), self.put(path.as_bytes()));
        self.call(|c, m| paths::path_symlink(c, m, o, ol, ROOT, n, nl))
    }

    fn readlink(&mut self, path: &str, room: usize) -> Result<Vec<u8>, Errno> {
        let (at, len) = self.put(path.as_bytes());
        let (buffer, used) = (self.room(room), self.room(4));
        self.call(|c, m| paths::path_readlink(c, m, ROOT, at, len, buffer, room as u32, used))?;
        let count = self.u32_at(used) as usize;
        Ok(self.memory[buffer as usize..][..count].to_vec())
    }

    fn set_times(&mut self, path: &str, lookup: u32, time: u64, flags: u32) -> Result<(), Errno> {
        let (at, len) = self.put(path.as_bytes());
        self.call(|c, m| {
            paths::path_filestat_set_times(c, m, ROOT, lookup, at, len, time, time, flags)
        })
    }
}
