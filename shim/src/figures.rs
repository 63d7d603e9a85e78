//! What happens in shims, told to the node daemon: one datagram for each happening.
//!
//! Shims are processes of their own, and the daemon's figures are of all of them. A shim sends when containerd has its
//! answer, never waits, and does not know whether anybody hears: where no daemon listens, or one that is busy, the
//! datagram is lost and nothing else. The socket lies in the folder of what a restart of the machine forgets, which
//! is root's alone; the daemon still takes nothing of a message but known numbers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::guest::{Exit, Trap, WaitStatus};

/// The socket's name, in the folder that `CORACLE_RUN_DIR` names or `/run/coracle`.
pub const SOCKET: &str = "node.sock";
/// The longest message, in bytes.
pub const MAX_LENGTH: usize = 64;
/// The first byte of a message; another one means that shim and daemon are not of one release.
const VERSION: u8 = 1;
/// Time in which an answer that is being written gets out.
const BEHIND_THE_ANSWER: Duration = Duration::from_millis(1);

/// What a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Program {
    /// A WebAssembly module, of the image or the toolbox.
    Wasm(Code),
    /// A Linux program.
    Linux,
    /// The built-in sleeper of a pod.
    Pause,
}

/// Where a module's code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Code {
    /// The cache had it.
    Hit,
    /// Start waited for the compiler, this shim's or another's.
    Compiled,
    /// The program started before its code was complete.
    FirstStart,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// By itself, with this exit code.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// By the trap with this number in [`coracle_engine::abi::trap::TrapKind`], or 0: an exception that nobody caught.
    Trap(u8),
    /// Nobody saw how.
    Unknown,
}

impl From<&WaitStatus> for End {
    fn from(status: &WaitStatus) -> Self {
        match (status.trap, status.exit) {
            (Some(Trap::Kind(kind)), _) => Self::Trap(kind.code()),
            (Some(Trap::Exception), _) => Self::Trap(0),
            (None, Exit::Code(code)) => Self::Code(code),
            (None, Exit::Signal(signal)) => Self::Signal(u8::try_from(signal).unwrap_or(0)),
            (None, Exit::Lost) => Self::Unknown,
        }
    }
}

/// Something that the daemon counts. Times are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happening {
    /// A container was created and its program started.
    Started {
        /// What it runs.
        program: Program,
        /// From the receipt of Create to its answer.
        create: u64,
        /// From the receipt of Start to its answer.
        start: u64,
    },
    /// Create or Start failed.
    NotStarted,
    /// A module was compiled for the cache, or for a program that waits for all of its code.
    Compiled {
        /// For how long, the initialisation of the program included.
        time: u64,
    },
    /// A module was not compiled, though nobody had it stopped.
    NotCompiled,
    /// The kernel killed in a container for want of memory.
    OutOfMemory,
    /// A container's program ended.
    Ended(End),
}

/// Why a datagram is no happening.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unreadable {
    /// Of another release, or of nobody that is known.
    #[error("it is of version {0}, not {VERSION}")]
    Version(u8),
    /// Too long, too short, or with numbers that mean nothing.
    #[error("it is no message")]
    Malformed,
}

impl Happening {
    /// The bytes of the datagram, at most [`MAX_LENGTH`].
    fn encode(&self) -> Option<Vec<u8>> {
        postcard::to_extend(self, vec![VERSION]).ok()
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn decode(datagram: &[u8]) -> Result<Self, Unreadable> {
        match datagram.split_first() {
            Some((&VERSION, body)) if datagram.len() <= MAX_LENGTH => {
                match postcard::take_from_bytes(body) {
                    Ok((happening, [])) => Ok(happening),
                    _ => Err(Unreadable::Malformed),
                }
            }
            Some((&version, _)) if version != VERSION => Err(Unreadable::Version(version)),
            _ => Err(Unreadable::Malformed),
        }
    }
}

/// Where this process tells; never set in one that has nothing to tell.
static ADDRESS: OnceLock<PathBuf> = OnceLock::new();

/// Lets this process tell what happens, by the socket in `run`.
pub fn begin(run: &Path) {
    // A second word would be the same.
    let _ = ADDRESS.set(run.join(SOCKET));
}

/// Tells the daemon, if there is one.
pub fn tell(happening: Happening) {
    if let (Some(address), Some(datagram)) = (ADDRESS.get(), happening.encode())
        && let Err(error) = send(address, &datagram)
    {
        tracing::trace!(%error, "nobody counts this");
    }
}

/// The same, when what is about to be answered is out. Must be called within the tokio runtime.
pub fn tell_later(happening: Happening) {
    tokio::spawn(async move {
        tokio::time::sleep(BEHIND_THE_ANSWER).await;
        tell(happening);
    });
}

/// A socket of its own for each datagram: an idle shim holds none.
fn send(address: &Path, datagram: &[u8]) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    let address = SocketAddrUnix::new(address)?;
    rustix::net::sendto(&socket, datagram, SendFlags::NOSIGNAL, &address)?;
    Ok(())
}

/// Whole microseconds.
#[must_use]
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Happening; 9] = [
        Happening::Started { program: Program::Wasm(Code::Hit), create: 1, start: u64::MAX },
        Happening::Started { program: Program::Wasm(Code::FirstStart), create: u64::MAX, start: 0 },
        Happening::Started { program: Program::Pause, create: 7, start: 7 },
        Happening::NotStarted,
        Happening::Compiled { time: 12_000_000 },
        Happening::NotCompiled,
        Happening::OutOfMemory,
        Happening::Ended(End::Trap(10)),
        Happening::Ended(End::Signal(9)),
    ];

    #[test]
    fn what_is_written_is_read() {
        for happening in ALL {
            let bytes = happening.encode().unwrap();
            assert!(bytes.len() <= MAX_LENGTH, "{happening:?} takes {}", bytes.len());
            assert_eq!(Happening::decode(&bytes), Ok(happening));
        }
    }

    #[test]
    fn nothing_else_is() {
        for happening in ALL {
            let bytes = happening.encode().unwrap();
            for length in 0..bytes.len() {
                assert!(
                    Happening::decode(&bytes[..length]).is_err(),
                    "{happening:?} cut to {length}"
                );
            }
            let mut more = bytes.clone();
            more.push(0);
            assert_eq!(Happening::decode(&more), Err(Unreadable::Malformed));
            let mut other = bytes;
            other[0] = 2;
            assert_eq!(Happening::decode(&other), Err(Unreadable::Version(2)));
        }
        assert_eq!(Happening::decode(&[VERSION, 99]), Err(Unreadable::Malformed));
        assert_eq!(Happening::decode(&[VERSION; MAX_LENGTH + 1]), Err(Unreadable::Malformed));
    }

    #[test]
    fn nobody_there_and_one_who_does_not_read_stop_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let address = dir.path().join(SOCKET);
        assert!(send(&address, b"x").is_err());
        let deaf = std::os::unix::net::UnixDatagram::bind(&address).unwrap();
        let full = (0..100_000).find_map(|_| send(&address, b"x").err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(deaf);
        assert!(send(&address, b"x").is_err());
    }
}
