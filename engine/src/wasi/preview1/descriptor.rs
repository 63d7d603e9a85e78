//! A descriptor of preview 1: an object of the host core with rights, and a name if preopened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::errno::Errno;
use super::rights::{LISTENER, Rights, greatest};
use crate::wasi::core::dir::Dir;
use crate::wasi::core::file::File;
use crate::wasi::core::object::Object;
use crate::wasi::core::socket::Socket;
use crate::wasi::ctx::WasiCtx;

/// An entry of the descriptor table.
#[derive(Debug)]
pub struct Descriptor {
    pub(in crate::wasi) object: Object,
    base: AtomicU64,
    inheriting: AtomicU64,
    pub(super) preopen: Option<Box<[u8]>>,
}

impl Descriptor {
    /// An object with all rights that it can have, those included that it gains by what becomes of
    /// it: a socket may listen one day.
    #[must_use]
    pub fn new(object: Object) -> Descriptor {
        let (base, inheriting) = match &object {
            Object::Socket(_) => LISTENER,
            other => greatest(other),
        };
        Descriptor {
            object,
            base: base.bits().into(),
            inheriting: inheriting.bits().into(),
            preopen: None,
        }
    }

    /// A directory that the guest finds by name.
    #[must_use]
    pub fn preopen(dir: Dir, name: &[u8]) -> Descriptor {
        Descriptor { preopen: Some(name.into()), ..Descriptor::new(Object::Dir(dir)) }
    }

    /// An object with the rights among those asked for that it can have.
    pub(super) fn restricted(object: Object, base: Rights, inheriting: Rights) -> Descriptor {
        let descriptor = Descriptor::new(object);
        let full = descriptor.rights();
        descriptor.set_rights(full.0 & base, full.1 & inheriting);
        descriptor
    }

    /// Its own rights, and those that it hands on to what is opened beneath.
    pub(in crate::wasi) fn rights(&self) -> (Rights, Rights) {
        let bits = |rights: &AtomicU64| Rights::from_bits(rights.load(Ordering::Relaxed));
        let kept = (bits(&self.base), bits(&self.inheriting));
        match &self.object {
            Object::Socket(_) => {
                let now = greatest(&self.object);
                (kept.0 & now.0, kept.1 & now.1)
            }
            _ => kept,
        }
    }

    /// Gives up all other rights. Of two threads that do so at once, one has the last word: both
    /// asked for what the descriptor had.
    pub(super) fn keep_rights(&self, base: Rights, inheriting: Rights) -> Result<(), Errno> {
        let now = self.rights();
        if !now.0.contains(base) || !now.1.contains(inheriting) {
            return Err(Errno::Notcapable);
        }
        self.set_rights(base, inheriting);
        Ok(())
    }

    fn set_rights(&self, base: Rights, inheriting: Rights) {
        self.base.store(base.bits(), Ordering::Relaxed);
        self.inheriting.store(inheriting.bits(), Ordering::Relaxed);
    }

    pub(in crate::wasi) fn require(&self, rights: Rights) -> Result<(), Errno> {
        if self.rights().0.contains(rights) { Ok(()) } else { Err(Errno::Notcapable) }
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

    pub(in crate::wasi) fn socket(&self, rights: Rights) -> Result<&Socket, Errno> {
        let socket = self.object.socket()?;
        self.require(rights)?;
        Ok(socket)
    }
}

impl WasiCtx {
    /// What a number stands for. It stays open for as long as the caller holds it, whatever other
    /// threads of the guest do with the number.
    pub(in crate::wasi) fn descriptor(&self, fd: u32) -> Result<Arc<Descriptor>, Errno> {
        Ok(self.fds.get(fd)?)
    }
}
