//! The tables, and the guest without code that the dialects' tests share.

use std::collections::BTreeSet;

use super::*;
use crate::wasi::ctx::{WasiCtx, WasiCtxBuilder};
use crate::wasi::guest_mem::GuestMemory;
use crate::wasi::preview1;
use crate::wasi::preview1::errno::Errno;

/// A guest without code: a context that may use the network, and a memory of one page.
pub(super) struct Guest {
    pub(super) ctx: WasiCtx,
    pub(super) memory: Vec<u8>,
    free: u32,
}

impl Guest {
    pub(super) fn new() -> Guest {
        Guest::with("allow", |_| {})
    }

    pub(super) fn with(policy: &str, grants: impl FnOnce(&mut WasiCtxBuilder)) -> Guest {
        let mut builder = WasiCtxBuilder::new();
        builder.network(policy.parse().unwrap());
        grants(&mut builder);
        Guest { ctx: builder.build().unwrap(), memory: vec![0; 65536], free: 4096 }
    }

    pub(super) fn call<R>(&mut self, call: impl FnOnce(&WasiCtx, &mut GuestMemory<'_>) -> R) -> R {
        call(&self.ctx, &mut GuestMemory::new(&mut self.memory))
    }

    /// Room for `len` bytes of zeros, aligned for anything.
    pub(super) fn room(&mut self, len: usize) -> u32 {
        let at = self.free;
        self.free += len.next_multiple_of(8) as u32;
        self.memory[at as usize..][..len].fill(0);
        at
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> u32 {
        let at = self.room(bytes.len());
        self.memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
        at
    }

    /// A list of one buffer; the second address is the buffer's.
    pub(super) fn iovec(&mut self, bytes: &[u8]) -> (u32, u32) {
        let at = self.put(bytes);
        let list = [at.to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
        (self.put(&list), at)
    }

    pub(super) fn bytes(&self, at: u32, len: usize) -> &[u8] {
        &self.memory[at as usize..][..len]
    }

    pub(super) fn u32_at(&self, at: u32) -> u32 {
        u32::from_le_bytes(self.bytes(at, 4).try_into().unwrap())
    }

    pub(super) fn send(&mut self, fd: u32, bytes: &[u8]) -> Result<u32, Errno> {
        let ((list, _), out) = (self.iovec(bytes), self.room(4));
        self.call(|c, m| preview1::sock::sock_send(c, m, fd, list, 1, 0, out))?;
        Ok(self.u32_at(out))
    }

    pub(super) fn recv(&mut self, fd: u32, len: usize, flags: u32) -> Result<Vec<u8>, Errno> {
        let ((list, at), out) = (self.iovec(&vec![0; len]), self.room(8));
        self.call(|c, m| preview1::sock::sock_recv(c, m, fd, list, 1, flags, out, out + 4))?;
        Ok(self.bytes(at, self.u32_at(out) as usize).to_vec())
    }

    pub(super) fn listen(&mut self, fd: u32) -> Result<(), Errno> {
        self.call(|c, m| common::sock_listen(c, m, fd, 16))
    }

    pub(super) fn set_nonblocking(&mut self, fd: u32) {
        self.call(|c, m| preview1::fd::fd_fdstat_set_flags(c, m, fd, 4)).unwrap();
    }

    pub(super) fn close(&mut self, fd: u32) {
        self.call(|c, m| preview1::fd::fd_close(c, m, fd)).unwrap();
    }

    pub(super) fn rights(&mut self, fd: u32) -> preview1::rights::Rights {
        let out = self.room(24);
        self.call(|c, m| preview1::fd::fd_fdstat_get(c, m, fd, out)).unwrap();
        let bits = u64::from_le_bytes(self.bytes(out + 8, 8).try_into().unwrap());
        preview1::rights::Rights::from_bits(bits)
    }
}

#[test]
fn a_name_and_its_parameters_occur_once() {
    let all = || TABLES.iter().flat_map(|(_, table)| table.iter());
    for entry in all() {
        let same = |other: &&Entry| other.name == entry.name && other.params == entry.params;
        assert_eq!(all().filter(same).count(), 1, "{}", entry.name);
    }
    let count = |table: &[Entry]| table.len();
    assert_eq!((count(wamr::FUNCTIONS), count(COMMON)), (47, 1));
}

#[test]
fn the_readme_lists_every_function() {
    let readme = include_str!("../README.md");
    let table = readme.split("## Functions").nth(1).unwrap().split("\n## ").next().unwrap();
    let words = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .flat_map(|line| line.rsplit('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    let told: BTreeSet<&str> = words.collect();
    let tables = TABLES.iter().flat_map(|(_, table)| table.iter().map(|entry| entry.name));
    let linked: BTreeSet<&str> = tables.chain(["proc_exit", "proc_raise"]).collect();
    assert_eq!(told, linked);
}
