//! Why an operation of the host core fails.

use rustix::io::Errno;

/// Result of an operation of the host core.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation fails. Each ABI translates this once, in its own terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No open descriptor has this number.
    #[error("no such descriptor")]
    BadDescriptor,
    /// The guest holds as many descriptors as it may.
    #[error("too many open descriptors")]
    TooManyDescriptors,
    /// A directory is needed.
    #[error("not a directory")]
    NotDirectory,
    /// A file is needed and this is a directory.
    #[error("is a directory")]
    IsDirectory,
    /// A socket is needed.
    #[error("not a socket")]
    NotSocket,
    /// This has no position: a pipe, a terminal, a socket.
    #[error("not seekable")]
    NotSeekable,
    /// An absolute path, or one that leads out of the directory that it starts from.
    #[error("path leads out of the granted directory")]
    Escape,
    /// The directory was granted for reading only.
    #[error("granted for reading only")]
    ReadOnly,
    /// A parameter is out of its range.
    #[error("invalid parameter")]
    Invalid,
    /// Not possible with this kind of object or clock.
    #[error("not supported")]
    NotSupported,
    /// The guest is being stopped and accepts nothing new.
    #[error("stopping")]
    Stopped,
    /// A signal came for the guest, which handles it.
    #[error("interrupted by a signal")]
    Interrupted,
    /// The network policy does not allow it.
    #[error("not allowed by the network policy")]
    Denied,
    /// The operating system says so.
    #[error(transparent)]
    Os(#[from] Errno),
}
