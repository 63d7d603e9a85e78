//! A descriptor of preview 1: an object of the host core with rights, and a name if preopened.

use super::errno::Errno;
use super::rights::{Rights, greatest};
use crate::wasi::core::dir::Dir;
use crate::wasi::core::file::File;
use crate::wasi::core::object::Object;
use crate::wasi::core::socket::Socket;
use crate::wasi::ctx::WasiCtx;

/// An entry of the descriptor table.
#[derive(Debug)]
pub struct Descriptor {
    pub(super) object: Object,
    pub(super) base: Rights,
    pub(super) inheriting: Rights,
    pub(super) preopen: Option<Box<[u8]>>,
}

impl Descriptor {
    /// An object with all rights that it can have.
    #[must_use]
    pub fn new(object: Object) -> Descriptor {
        let (base, inheriting) = greatest(&object);
        Descriptor { object, base, inheriting, preopen: None }
    }

    /// A directory that the guest finds by name.
    #[must_use]
    pub fn preopen(dir: Dir, name: &[u8]) -> Descriptor {
        Descriptor { preopen: Some(name.into()), ..Descriptor::new(Object::Dir(dir)) }
    }

    /// An object with the rights among those asked for that it can have.
    pub(super) fn restricted(object: Object, base: Rights, inheriting: Rights) -> Descriptor {
        let full = Descriptor::new(object);
        Descriptor { base: full.base & base, inheriting: full.inheriting & inheriting, ..full }
    }

    pub(super) fn require(&self, rights: Rights) -> Result<(), Errno> {
        if self.base.contains(rights) { Ok(()) } else { Err(Errno::Notcapable) }
    }

    pub(super) fn file(&self, rights: Rights) -> Result<&File, Errno> {
        let file = self.object.file()?;
        self.require(rights)?;
        Ok(file)
    }

    /// A file with a position. Its lack is told before the lack of rights, since guests ask for the
    /// position to find out whether there is one.
    pub(super) fn seekable(&self, rights: Rights) -> Result<&File, Errno> {
        if !self.object.file()?.is_seekable() {
            return Err(Errno::Spipe);
        }
        self.file(rights)
    }

    pub(super) fn dir(&self, rights: Rights) -> Result<&Dir, Errno> {
        let dir = self.object.dir()?;
        self.require(rights)?;
        Ok(dir)
    }

    pub(super) fn socket(&self, rights: Rights) -> Result<&Socket, Errno> {
        let socket = self.object.socket()?;
        self.require(rights)?;
        Ok(socket)
    }
}

impl WasiCtx {
    pub(super) fn descriptor(&self, fd: u32) -> Result<&Descriptor, Errno> {
        Ok(self.fds.get(fd)?)
    }

    pub(super) fn descriptor_mut(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        Ok(self.fds.get_mut(fd)?)
    }
}
