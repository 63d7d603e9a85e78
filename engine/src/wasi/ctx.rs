//! `WasiCtx`: all that a guest has been granted, and nothing else.

use std::cell::RefCell;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::core::descriptors::Descriptors;
use super::core::dir::Dir;
use super::core::error::{Error, Result as CoreResult};
use super::core::file::{File, Handle};
use super::core::mode::Mode;
use super::core::names::Files;
use super::core::network::Network;
use super::core::object::Object;
use super::core::policy::NetworkPolicy;
use super::core::random::Random;
use super::core::socket::Socket;
use super::core::stop::Stop;
use super::core::table::Table;
use super::preview1::descriptor::Descriptor;

/// Descriptors that a guest may hold unless the builder says otherwise.
pub const DEFAULT_DESCRIPTORS: u32 = 1024;

/// Why something cannot be granted.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// A NUL byte would end the string early.
    #[error("{what} {index} contains a NUL byte")]
    Nul {
        /// "argument" or "environment variable".
        what: &'static str,
        /// Which one, from 0.
        index: usize,
    },
    /// The strings would not fit into a guest's memory.
    #[error("{what}s are longer than 4 GiB together")]
    TooLong {
        /// "argument" or "environment variable".
        what: &'static str,
    },
    /// A directory cannot be used.
    #[error("cannot grant the directory {name}: {source}")]
    Directory {
        /// The name that the guest would know it by.
        name: String,
        /// Why not.
        source: Error,
    },
    /// A standard stream or socket cannot be used.
    #[error("cannot grant descriptor {number}: {source}")]
    Descriptor {
        /// The number that it would have.
        number: u32,
        /// Why not.
        source: Error,
    },
}

/// A list of strings as guests read it: one run of bytes, each string ended by a NUL.
#[derive(Debug, Default)]
pub struct Strings {
    /// All strings with their NULs.
    pub bytes: Vec<u8>,
    /// Where each begins.
    pub starts: Vec<u32>,
}

impl Strings {
    fn new<'s>(
        what: &'static str,
        strings: impl Iterator<Item = [&'s [u8]; 3]>,
    ) -> Result<Strings, GrantError> {
        let mut list = Strings::default();
        for (index, parts) in strings.enumerate() {
            if parts.iter().any(|part| part.contains(&0)) {
                return Err(GrantError::Nul { what, index });
            }
            let start = u32::try_from(list.bytes.len());
            list.starts.push(start.map_err(|_| GrantError::TooLong { what })?);
            parts.iter().for_each(|part| list.bytes.extend_from_slice(part));
            list.bytes.push(0);
        }
        u32::try_from(list.bytes.len()).map_err(|_| GrantError::TooLong { what })?;
        Ok(list)
    }
}

/// All that a guest has been granted, with the state of its descriptors.
#[derive(Debug)]
pub struct WasiCtx {
    pub(crate) args: Arc<Strings>,
    pub(crate) env: Arc<Strings>,
    pub(crate) fds: Descriptors<Descriptor>,
    pub(crate) random: RefCell<Random>,
    /// What it may do with sockets of its own.
    pub(crate) network: Arc<Network>,
    /// For sockets that the guest makes listen.
    pub(crate) stop: Option<&'static Stop>,
}

impl WasiCtx {
    /// The same for another thread of the guest; `None` unless it was built for several.
    #[must_use]
    pub fn for_thread(&self) -> Option<WasiCtx> {
        Some(WasiCtx {
            args: Arc::clone(&self.args),
            env: Arc::clone(&self.env),
            fds: self.fds.for_thread()?,
            random: RefCell::default(),
            network: Arc::clone(&self.network),
            stop: self.stop,
        })
    }

    /// How many operations the network policy has refused so far, those of all threads together.
    #[must_use]
    pub fn network_refusals(&self) -> u64 {
        self.network.refused()
    }
}

#[derive(Debug)]
enum Stream {
    /// The process's own.
    Process,
    Given(OwnedFd),
}

impl Stream {
    /// The stream as descriptor `number`, or `None` if the process has it closed.
    fn open(self, number: u32) -> CoreResult<Option<Object>> {
        let handle = match self {
            Stream::Given(fd) => Handle::Owned(fd),
            Stream::Process => Handle::Process(process_stream(number)),
        };
        let inherited = matches!(handle, Handle::Process(_));
        match File::adopt(handle) {
            Ok(file) => Ok(Some(Object::File(file))),
            Err(Error::Os(Errno::BADF)) if inherited => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn process_stream(number: u32) -> BorrowedFd<'static> {
    match number {
        0 => rustix::stdio::stdin(),
        1 => rustix::stdio::stdout(),
        _ => rustix::stdio::stderr(),
    }
}

#[derive(Debug)]
struct Preopen {
    fd: OwnedFd,
    name: String,
    writable: bool,
}

/// Collects grants. Nothing is granted by default: no argument, no variable, no directory, no
/// network; the standard streams are closed.
#[derive(Debug, Default)]
pub struct WasiCtxBuilder {
    args: Vec<Vec<u8>>,
    env: Vec<(Vec<u8>, Vec<u8>)>,
    streams: [Option<Stream>; 3],
    preopens: Vec<Preopen>,
    sockets: Vec<OwnedFd>,
    limit: Option<u32>,
    sockets_first: bool,
    sockets_nonblock: bool,
    threads: bool,
    network: NetworkPolicy,
    names: Files,
    stop: Option<&'static Stop>,
}

impl WasiCtxBuilder {
    /// No grants.
    #[must_use]
    pub fn new() -> WasiCtxBuilder {
        WasiCtxBuilder::default()
    }

    /// Appends an argument; the first is the program's name.
    pub fn arg(&mut self, arg: impl Into<Vec<u8>>) -> &mut WasiCtxBuilder {
        self.args.push(arg.into());
        self
    }

    /// Appends an environment variable.
    pub fn env(
        &mut self,
        name: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> &mut WasiCtxBuilder {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Lets the guest use the process's standard input, output and error. Those that are closed
    /// are closed for the guest too.
    pub fn inherit_stdio(&mut self) -> &mut WasiCtxBuilder {
        self.streams = [Some(Stream::Process), Some(Stream::Process), Some(Stream::Process)];
        self
    }

    /// Gives the guest this descriptor as its standard input.
    pub fn stdin(&mut self, fd: OwnedFd) -> &mut WasiCtxBuilder {
        self.streams[0] = Some(Stream::Given(fd));
        self
    }

    /// Gives the guest this descriptor as its standard output.
    pub fn stdout(&mut self, fd: OwnedFd) -> &mut WasiCtxBuilder {
        self.streams[1] = Some(Stream::Given(fd));
        self
    }

    /// Gives the guest this descriptor as its standard error.
    pub fn stderr(&mut self, fd: OwnedFd) -> &mut WasiCtxBuilder {
        self.streams[2] = Some(Stream::Given(fd));
        self
    }

    /// Grants all that lies beneath a directory, under the name `guest_path`. The descriptor must
    /// be open for reading (not `O_PATH`). A read-only grant refuses every change through it, also
    /// where other mounts beneath could be written.
    pub fn preopen(
        &mut self,
        fd: OwnedFd,
        guest_path: impl Into<String>,
        readonly: bool,
    ) -> &mut WasiCtxBuilder {
        self.preopens.push(Preopen { fd, name: guest_path.into(), writable: !readonly });
        self
    }

    /// Hands in a socket, listening or connected. Sockets get the numbers after the directories.
    pub fn socket(&mut self, fd: OwnedFd) -> &mut WasiCtxBuilder {
        self.sockets.push(fd);
        self
    }

    /// Gives sockets the numbers from 3 on, before the directories. Some guests expect theirs there;
    /// most then find no directory, since they look for them from 3 up to the first that is none.
    pub fn sockets_first(&mut self, first: bool) -> &mut WasiCtxBuilder {
        self.sockets_first = first;
        self
    }

    /// Whether sockets handed in do not make the guest wait from the start. Guests with a scheduler of their own on
    /// one thread look for that and never ask for it, such as Go's.
    pub fn sockets_nonblock(&mut self, nonblock: bool) -> &mut WasiCtxBuilder {
        self.sockets_nonblock = nonblock;
        self
    }

    /// How many descriptors the guest may hold, what is granted included.
    pub fn max_descriptors(&mut self, limit: u32) -> &mut WasiCtxBuilder {
        self.limit = Some(limit);
        self
    }

    /// Whether the guest may have several threads, which then share its descriptors.
    pub fn threads(&mut self, threads: bool) -> &mut WasiCtxBuilder {
        self.threads = threads;
        self
    }

    /// What the guest may do with the network beyond the sockets handed in: nothing unless told.
    /// Names are looked up in the process's `/etc/hosts` and by its `/etc/resolv.conf`.
    pub fn network(&mut self, policy: NetworkPolicy) -> &mut WasiCtxBuilder {
        self.network = policy;
        self
    }

    /// Other files to look names up with.
    pub fn name_files(&mut self, files: Files) -> &mut WasiCtxBuilder {
        self.names = files;
        self
    }

    /// What stops the guest when it listens; see [`Stop`].
    pub fn stop(&mut self, stop: &'static Stop) -> &mut WasiCtxBuilder {
        self.stop = Some(stop);
        self
    }

    /// The context. Standard streams are descriptors 0 to 2, directories follow from 3 on in the
    /// order in which they were granted, then sockets.
    ///
    /// # Errors
    /// What cannot be granted, and why.
    pub fn build(self) -> Result<WasiCtx, GrantError> {
        let args = self.args.iter().map(|arg| [&arg[..], b"", b""]);
        let env = self.env.iter().map(|(name, value)| [&name[..], b"=", &value[..]]);
        let limit = self.limit.unwrap_or(DEFAULT_DESCRIPTORS);
        let mut fds = Table::new(limit);
        let refused = |number, source| GrantError::Descriptor { number, source };
        for (number, stream) in (0..).zip(self.streams) {
            let slot = match stream {
                Some(stream) => stream.open(number).map_err(|e| refused(number, e))?,
                None => None,
            };
            fds.push(slot.map(Descriptor::new).map(Arc::new)).map_err(|e| refused(number, e))?;
        }
        let mode = Mode { nonblock: self.sockets_nonblock, ..Mode::default() };
        let (first, last) = if self.sockets_first {
            (self.sockets, Vec::new())
        } else {
            (Vec::new(), self.sockets)
        };
        add_sockets(&mut fds, first, mode, self.stop)?;
        for Preopen { fd, name, writable } in self.preopens {
            Dir::adopt(fd, writable)
                .and_then(|dir| fds.push(Some(Arc::new(Descriptor::preopen(dir, name.as_bytes())))))
                .map_err(|source| GrantError::Directory { name, source })?;
        }
        add_sockets(&mut fds, last, mode, self.stop)?;
        Ok(WasiCtx {
            args: Arc::new(Strings::new("argument", args)?),
            env: Arc::new(Strings::new("environment variable", env)?),
            fds: if self.threads { Descriptors::shared(fds) } else { Descriptors::own(fds) },
            random: RefCell::default(),
            network: Arc::new(Network::new(self.network, self.names)),
            stop: self.stop,
        })
    }
}

fn add_sockets(
    fds: &mut Table<Arc<Descriptor>>,
    sockets: Vec<OwnedFd>,
    mode: Mode,
    stop: Option<&'static Stop>,
) -> Result<(), GrantError> {
    for fd in sockets {
        let number = fds.len();
        Socket::adopt(fd, mode, stop)
            .and_then(|socket| fds.push(Some(Arc::new(Descriptor::new(Object::Socket(socket))))))
            .map_err(|source| GrantError::Descriptor { number, source })?;
    }
    Ok(())
}
