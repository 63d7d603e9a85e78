//! Rights of preview 1: what they are, which objects can have them, which operation needs which.

use std::fmt;
use std::ops::{BitAnd, BitOr, Not};

use crate::wasi::core::object::Object;
use crate::wasi::core::stat::Kind;

/// A set of rights (`rights` of the preview 1 witx).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(u64);

impl Rights {
    /// No right.
    pub const NONE: Rights = Rights(0);
    /// Every right.
    pub const ALL: Rights = Rights::from_bits(u64::MAX);

    /// The bits that mean something; others are dropped, since some guests ask for all 64.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Rights {
        Rights(bits & ((1 << NAMES.len()) - 1))
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether every right of `other` is here.
    #[must_use]
    pub const fn contains(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }

    const fn and(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }
}

impl BitOr for Rights {
    type Output = Rights;
    fn bitor(self, other: Rights) -> Rights {
        self.and(other)
    }
}

impl BitAnd for Rights {
    type Output = Rights;
    fn bitand(self, other: Rights) -> Rights {
        Rights(self.0 & other.0)
    }
}

impl Not for Rights {
    type Output = Rights;
    fn not(self) -> Rights {
        Rights::from_bits(!self.0)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.iter().enumerate().filter(|(n, _)| self.0 & (1 << n) != 0);
        f.debug_set().entries(names.map(|(_, name)| name)).finish()
    }
}

macro_rules! rights {
    ($($name:ident)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "only for numbering")]
        enum Bit { $($name),* }
        #[allow(missing_docs, reason = "names of the specification")]
        impl Rights {
            $(pub const $name: Rights = Rights(1 << Bit::$name as u64);)*
        }
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

// In the order of their bits.
rights! {
    FD_DATASYNC FD_READ FD_SEEK FD_FDSTAT_SET_FLAGS FD_SYNC FD_TELL FD_WRITE FD_ADVISE FD_ALLOCATE
    PATH_CREATE_DIRECTORY PATH_CREATE_FILE PATH_LINK_SOURCE PATH_LINK_TARGET PATH_OPEN FD_READDIR
    PATH_READLINK PATH_RENAME_SOURCE PATH_RENAME_TARGET PATH_FILESTAT_GET PATH_FILESTAT_SET_SIZE
    PATH_FILESTAT_SET_TIMES FD_FILESTAT_GET FD_FILESTAT_SET_SIZE FD_FILESTAT_SET_TIMES PATH_SYMLINK
    PATH_REMOVE_DIRECTORY PATH_UNLINK_FILE POLL_FD_READWRITE SOCK_SHUTDOWN SOCK_ACCEPT
}

macro_rules! operations {
    ($($name:ident: $($right:ident)+;)*) => {
        /// What each operation needs of its descriptor.
        #[allow(non_upper_case_globals, missing_docs, reason = "names of the specification")]
        pub mod needs {
            use super::Rights;
            $(pub const $name: Rights = Rights::NONE$(.and(Rights::$right))+;)*
        }
        /// Every operation that needs rights, with them.
        pub const OPERATIONS: &[(&str, Rights)] = &[$((stringify!($name), needs::$name)),*];
    };
}

operations! {
    fd_advise: FD_ADVISE;
    fd_allocate: FD_ALLOCATE;
    fd_datasync: FD_DATASYNC;
    fd_fdstat_set_flags: FD_FDSTAT_SET_FLAGS;
    fd_filestat_get: FD_FILESTAT_GET;
    fd_filestat_set_size: FD_FILESTAT_SET_SIZE;
    fd_filestat_set_times: FD_FILESTAT_SET_TIMES;
    fd_pread: FD_READ FD_SEEK;
    fd_pwrite: FD_WRITE FD_SEEK;
    fd_read: FD_READ;
    fd_readdir: FD_READDIR;
    fd_seek: FD_SEEK;
    fd_sync: FD_SYNC;
    fd_tell: FD_TELL;
    fd_write: FD_WRITE;
    path_create_directory: PATH_CREATE_DIRECTORY;
    path_filestat_get: PATH_FILESTAT_GET;
    path_filestat_set_times: PATH_FILESTAT_SET_TIMES;
    path_link_source: PATH_LINK_SOURCE;
    path_link_target: PATH_LINK_TARGET;
    path_open: PATH_OPEN;
    path_open_creating: PATH_CREATE_FILE;
    path_open_truncating: PATH_FILESTAT_SET_SIZE;
    path_readlink: PATH_READLINK;
    path_remove_directory: PATH_REMOVE_DIRECTORY;
    path_rename_source: PATH_RENAME_SOURCE;
    path_rename_target: PATH_RENAME_TARGET;
    path_symlink: PATH_SYMLINK;
    path_unlink_file: PATH_UNLINK_FILE;
    poll_read: POLL_FD_READWRITE FD_READ;
    poll_write: POLL_FD_READWRITE FD_WRITE;
    sock_accept: SOCK_ACCEPT;
    sock_recv: FD_READ;
    sock_send: FD_WRITE;
    sock_shutdown: SOCK_SHUTDOWN;
}

const STREAM: Rights = Rights::FD_DATASYNC
    .and(Rights::FD_READ)
    .and(Rights::FD_FDSTAT_SET_FLAGS)
    .and(Rights::FD_SYNC)
    .and(Rights::FD_WRITE)
    .and(Rights::FD_FILESTAT_GET)
    .and(Rights::POLL_FD_READWRITE);

const FILE: Rights = STREAM
    .and(Rights::FD_SEEK)
    .and(Rights::FD_TELL)
    .and(Rights::FD_ADVISE)
    .and(Rights::FD_ALLOCATE)
    .and(Rights::FD_FILESTAT_SET_SIZE)
    .and(Rights::FD_FILESTAT_SET_TIMES);

const DIRECTORY: Rights = Rights::FD_DATASYNC
    .and(Rights::FD_FDSTAT_SET_FLAGS)
    .and(Rights::FD_SYNC)
    .and(Rights::PATH_CREATE_DIRECTORY)
    .and(Rights::PATH_CREATE_FILE)
    .and(Rights::PATH_LINK_SOURCE)
    .and(Rights::PATH_LINK_TARGET)
    .and(Rights::PATH_OPEN)
    .and(Rights::FD_READDIR)
    .and(Rights::PATH_READLINK)
    .and(Rights::PATH_RENAME_SOURCE)
    .and(Rights::PATH_RENAME_TARGET)
    .and(Rights::PATH_FILESTAT_GET)
    .and(Rights::PATH_FILESTAT_SET_SIZE)
    .and(Rights::PATH_FILESTAT_SET_TIMES)
    .and(Rights::FD_FILESTAT_GET)
    .and(Rights::FD_FILESTAT_SET_TIMES)
    .and(Rights::PATH_SYMLINK)
    .and(Rights::PATH_REMOVE_DIRECTORY)
    .and(Rights::PATH_UNLINK_FILE);

const SOCKET: Rights = Rights::FD_READ
    .and(Rights::FD_WRITE)
    .and(Rights::FD_FDSTAT_SET_FLAGS)
    .and(Rights::FD_FILESTAT_GET)
    .and(Rights::POLL_FD_READWRITE)
    .and(Rights::SOCK_SHUTDOWN);

/// What a socket has when it listens, and hands on to what it accepts.
pub(super) const LISTENER: (Rights, Rights) = (SOCKET.and(Rights::SOCK_ACCEPT), SOCKET);

/// The most that a descriptor for `object` can have, and can hand on to what is opened beneath.
#[must_use]
pub fn greatest(object: &Object) -> (Rights, Rights) {
    match object {
        // Guests ask for rights of sockets too when they open a path, and mean no harm.
        Object::Dir(_) => (DIRECTORY, Rights::ALL),
        Object::Socket(socket) if socket.is_listening() => LISTENER,
        Object::Socket(_) => (SOCKET, Rights::NONE),
        Object::File(file) => {
            // Guests take a character device that cannot seek for a terminal.
            let mut rights = if file.is_seekable() { FILE } else { STREAM };
            if matches!(file.kind(), Kind::CharacterDevice) {
                rights = rights & !(Rights::FD_ALLOCATE | Rights::FD_FILESTAT_SET_SIZE);
            }
            if !file.access().read {
                rights = rights & !Rights::FD_READ;
            }
            if !file.access().write {
                let writing = Rights::FD_WRITE | Rights::FD_ALLOCATE | Rights::FD_FILESTAT_SET_SIZE;
                rights = rights & !writing;
            }
            (rights, Rights::NONE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_specification() {
        assert_eq!(Rights::FD_DATASYNC.bits(), 1);
        assert_eq!(Rights::FD_WRITE.bits(), 1 << 6);
        assert_eq!(Rights::FD_READDIR.bits(), 1 << 14);
        assert_eq!(Rights::POLL_FD_READWRITE.bits(), 1 << 27);
        assert_eq!(Rights::SOCK_ACCEPT.bits(), 1 << 29);
        assert_eq!(Rights::from_bits(u64::MAX).bits(), (1 << 30) - 1);
        assert_eq!(format!("{:?}", Rights::FD_READ | Rights::FD_SEEK), r#"{"FD_READ", "FD_SEEK"}"#);
    }
}
