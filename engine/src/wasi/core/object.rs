//! What a descriptor can stand for, and the operations that all kinds share.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};

use super::dir::Dir;
use super::error::{Error, Result};
use super::file::File;
use super::mode::Mode;
use super::socket::{ReceiveOptions, Socket};
use super::stat::{Kind, Stat};

/// An open object.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Object {
    File(File),
    Dir(Dir),
    Socket(Socket),
}

impl Object {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Object::File(file) => file.kind(),
            Object::Dir(_) => Kind::Directory,
            Object::Socket(socket) => socket.kind(),
        }
    }

    /// The file.
    ///
    /// # Errors
    /// [`Error::IsDirectory`] or [`Error::NotSeekable`]: what file operations say of other kinds.
    pub fn file(&self) -> Result<&File> {
        match self {
            Object::File(file) => Ok(file),
            Object::Dir(_) => Err(Error::IsDirectory),
            Object::Socket(_) => Err(Error::NotSeekable),
        }
    }

    /// The directory.
    ///
    /// # Errors
    /// [`Error::NotDirectory`].
    pub fn dir(&self) -> Result<&Dir> {
        match self {
            Object::Dir(dir) => Ok(dir),
            _ => Err(Error::NotDirectory),
        }
    }

    /// The socket.
    ///
    /// # Errors
    /// [`Error::NotSocket`].
    pub fn socket(&self) -> Result<&Socket> {
        match self {
            Object::Socket(socket) => Ok(socket),
            _ => Err(Error::NotSocket),
        }
    }

    /// How it behaves. Directories have nothing to choose.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self {
            Object::File(file) => file.mode.get(),
            Object::Dir(_) => Mode::default(),
            Object::Socket(socket) => socket.mode.get(),
        }
    }

    /// Changes how it behaves.
    pub fn set_mode(&self, mode: Mode) {
        match self {
            Object::File(file) => file.mode.set(mode),
            Object::Dir(_) => {}
            Object::Socket(socket) => socket.mode.set(mode),
        }
    }

    /// The attributes.
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn stat(&self) -> Result<Stat> {
        match self {
            Object::File(file) => file.stat(),
            Object::Dir(dir) => dir.stat(),
            Object::Socket(socket) => socket.stat(),
        }
    }

    /// Reads or receives; see [`File::read`] and [`Socket::receive`].
    ///
    /// # Errors
    /// [`Error::IsDirectory`], or what those say.
    pub fn read(&self, buffers: &mut [IoSliceMut<'_>]) -> Result<usize> {
        match self {
            Object::File(file) => file.read(buffers),
            Object::Dir(_) => Err(Error::IsDirectory),
            Object::Socket(socket) => {
                socket.receive(buffers, ReceiveOptions::default()).map(|received| received.bytes)
            }
        }
    }

    /// Writes or sends; see [`File::write`] and [`Socket::send`].
    ///
    /// # Errors
    /// [`Error::IsDirectory`], or what those say.
    pub fn write(&self, buffers: &[IoSlice<'_>]) -> Result<usize> {
        match self {
            Object::File(file) => file.write(buffers),
            Object::Dir(_) => Err(Error::IsDirectory),
            Object::Socket(socket) => socket.send(buffers),
        }
    }

    /// How many bytes a read would get now, if that is known.
    #[must_use]
    pub fn available(&self) -> u64 {
        match self {
            Object::File(file) => file.available(),
            Object::Dir(_) => 0,
            Object::Socket(socket) => socket.available(),
        }
    }
}

impl AsFd for Object {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Object::File(file) => file.as_fd(),
            Object::Dir(dir) => dir.as_fd(),
            Object::Socket(socket) => socket.as_fd(),
        }
    }
}
