//! `start`: finds the shim of this container's group or launches one, and prints its address.
//!
//! containerd 2.3 writes a `BootstrapParams` message to standard input and reads a
//! `BootstrapResult`; older ones pass flags and environment, and read a plain address. containerd
//! joins standard output and error, so success writes nothing but the answer, and the process left
//! behind holds neither.
//!
//! Two starts at once are ordered by a lock on the folder of the sockets. Under it the socket is
//! looked at, made and handed to the new process, so nobody ever meets a socket without a server. That process
//! is a fork of this one: another exec of the same executable would cost more than all else that is done here.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use containerd_shim::StartOpts;
use containerd_shim::bootstrap::{BootstrapParams, BootstrapResult, LogLevel};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, Message};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use rustix::fs::FlockOperation;

use crate::cli::Flags;
use crate::config::{
    ConfigError, ENV_GRPC_ADDRESS, ENV_TTRPC_ADDRESS, Lookup, ShimConfig, process_env,
};
use crate::{RUNTIME_NAME, daemon};

/// The file in the bundle from which containerd and `delete` learn the address.
pub const ADDRESS_FILE: &str = "address";
/// Longest message read from standard input, in bytes; containerd's own bound.
const MAX_INPUT: u64 = 10 << 20;
/// Longest `config.json`, in bytes.
const MAX_SPEC: u64 = 10 << 20;
/// `sun_path` holds 108 bytes with its NUL (`unix(7)`).
const MAX_SOCKET_PATH: usize = 107;
/// The Task API version of an answer to containerd 2.3.
const V3: i32 = 3;
/// Type of the features message in `-info`.
const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Why no shim could be started.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A system call failed.
    #[error("{act} {path}: {source}", path = path.display())]
    Os {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Neither protocol brought the address for events.
    #[error("no address for events: containerd sets {ENV_TTRPC_ADDRESS} or sends it")]
    NoEvents,
    /// A bootstrap message for somebody else.
    #[error("standard input is for {theirs:?}, the flags are for {ours:?}")]
    Mismatch {
        /// Namespace and id in the message.
        theirs: (String, String),
        /// Namespace and id of the flags.
        ours: (String, String),
    },
    /// The folder's path is too long for a socket.
    #[error("socket path {path} has {length} bytes, {MAX_SOCKET_PATH} is the limit: use a shorter state or socket folder", path = path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// `config.json` is no JSON object with annotations.
    #[error("parse {path}: {source}", path = path.display())]
    Spec {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The environment of the server.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The answer.
    #[error("encode the answer: {0}")]
    Encode(#[from] protobuf::Error),
}

fn os<'a>(act: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BootstrapError + 'a {
    move |source| BootstrapError::Os { act, path: path.to_owned(), source }
}

/// How containerd asked, which decides how it wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Messages on standard input and output (containerd 2.3).
    Messages,
    /// Flags, environment, plain address. A version 3 answer would break containerd 1.6 and 1.7,
    /// and nothing in the request tells those from 2.0.
    Plain,
}

impl Protocol {
    fn answer(self, address: &str) -> Result<Vec<u8>, protobuf::Error> {
        match self {
            Self::Plain => Ok(address.as_bytes().to_vec()),
            Self::Messages => BootstrapResult {
                version: V3,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..Default::default()
            }
            .write_to_bytes(),
        }
    }
}

/// What the process that was asked to `start` is now.
#[derive(Debug)]
pub enum Started {
    /// The one that has answered, and has nothing left to do.
    Answered,
    /// Its child, the server.
    Server(Box<Server>),
}

/// What a server begins with.
#[derive(Debug)]
pub struct Server {
    /// Its configuration.
    pub config: ShimConfig,
    /// Its socket.
    pub listener: UnixListener,
    /// Where that is.
    pub socket: PathBuf,
    /// The bundle of the container that it was started for.
    pub bundle: PathBuf,
}

/// Answers `start`. Where there is no server yet, this process divides into one that answers and one that
/// serves; it must have a single thread.
///
/// # Errors
/// Why there is no shim now; nothing is left behind then.
pub fn start(flags: &Flags) -> Result<Started, BootstrapError> {
    let bundle = std::env::current_dir().map_err(os("find", Path::new("bundle")))?;
    let input = read_input().map_err(os("read", Path::new("standard input")))?;
    let (options, protocol) = options(&input, flags, &process_env)?;
    let (address, socket) = address(&options, flags, &bundle)?;
    let answer = protocol.answer(&address)?;
    let lock = lock_or_make(socket.parent().unwrap_or(Path::new("/")))?;
    // Before there may be a process that would have to be taken back.
    let listener = listen(&socket)?;
    let file = bundle.join(ADDRESS_FILE);
    let written = fs::write(&file, &address).map_err(os("write", &file));
    let Some(listener) = listener else {
        written?;
        return say(&answer).map(|()| Started::Answered);
    };
    let take_back = || {
        let _ = fs::remove_file(&socket);
        let _ = fs::remove_file(&file);
    };
    let divided = written.and_then(|()| {
        let config = config(flags, &options)?;
        let child = daemon::divide().map_err(os("start", Path::new("the server")))?;
        Ok((config, child))
    });
    let (config, child) = divided.inspect_err(|_| take_back())?;
    drop(lock);
    let Some(child) = child else {
        let server = Server { config, listener, socket, bundle };
        return Ok(Started::Server(Box::new(server)));
    };
    say(&answer).inspect_err(|_| {
        // Nobody will ever know of it.
        daemon::end(child);
        take_back();
    })?;
    Ok(Started::Answered)
}

/// The address of the container's shim, and its socket.
fn address(
    options: &StartOpts,
    flags: &Flags,
    bundle: &Path,
) -> Result<(String, PathBuf), BootstrapError> {
    let group = group(bundle)?.unwrap_or_else(|| flags.id.to_string());
    let address = options.socket_address(&group);
    let socket = socket_of(&address).map(PathBuf::from).unwrap_or_default();
    match socket.as_os_str().len() {
        length if length > MAX_SOCKET_PATH => {
            Err(BootstrapError::SocketPath { path: socket, length })
        }
        _ => Ok((address, socket)),
    }
}

/// The configuration of the server to be.
fn config(flags: &Flags, options: &StartOpts) -> Result<ShimConfig, ConfigError> {
    let flags = Flags { address: options.address.clone(), debug: options.debug, ..flags.clone() };
    ShimConfig::new(&flags, &|name| match name {
        ENV_TTRPC_ADDRESS => Some(options.ttrpc_address.clone().into()),
        _ => process_env(name),
    })
}

fn say(answer: &[u8]) -> Result<(), BootstrapError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(answer).and_then(|()| out.flush());
    written.map_err(os("write", Path::new("standard output")))
}

/// Whatever containerd piped in; nothing when a person runs the shim on a terminal.
fn read_input() -> io::Result<Vec<u8>> {
    let mut input = Vec::new();
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        stdin.lock().take(MAX_INPUT).read_to_end(&mut input)?;
    }
    Ok(input)
}

/// Brings both protocols to one form.
fn options(
    input: &[u8],
    flags: &Flags,
    env: Lookup<'_>,
) -> Result<(StartOpts, Protocol), BootstrapError> {
    let text = |name| env(name).and_then(|value| value.into_string().ok()).unwrap_or_default();
    let (mut params, protocol) = match message(input, flags)? {
        Some(params) => (params, Protocol::Messages),
        None => (BootstrapParams::default(), Protocol::Plain),
    };
    params.instance_id = flags.id.to_string();
    params.namespace = flags.namespace.clone();
    // The flags are sent along with the message and fill what it leaves open.
    if params.containerd_grpc_address.is_empty() {
        params.containerd_grpc_address = flags.address.clone();
    }
    if params.containerd_grpc_address.is_empty() {
        params.containerd_grpc_address = text(ENV_GRPC_ADDRESS);
    }
    if params.containerd_ttrpc_address.is_empty() {
        params.containerd_ttrpc_address = text(ENV_TTRPC_ADDRESS);
    }
    if params.containerd_ttrpc_address.is_empty() {
        return Err(BootstrapError::NoEvents);
    }
    if flags.debug {
        params.log_level = LogLevel::LOG_LEVEL_DEBUG.into();
    }
    Ok((StartOpts::from(params), protocol))
}

/// The bootstrap message, if that is what standard input holds.
///
/// Runtime options of the older protocol (a protobuf `Any`) decode as one too, with their type in
/// the place of the id. So a message counts only if it agrees with the flags, and is an error only
/// if it says more than an `Any` could.
fn message(input: &[u8], flags: &Flags) -> Result<Option<BootstrapParams>, BootstrapError> {
    let Ok(params) = BootstrapParams::parse_from_bytes(input) else { return Ok(None) };
    if params.instance_id == flags.id.as_str() && params.namespace == flags.namespace {
        return Ok(Some(params));
    }
    let as_any = BootstrapParams {
        instance_id: params.instance_id.clone(),
        namespace: params.namespace.clone(),
        ..Default::default()
    };
    if params == as_any {
        return Ok(None);
    }
    Err(BootstrapError::Mismatch {
        theirs: (params.namespace, params.instance_id),
        ours: (flags.namespace.clone(), flags.id.to_string()),
    })
}

/// The group of the container, from its annotations; the rest of the file is Create's business.
fn group(bundle: &Path) -> Result<Option<String>, BootstrapError> {
    #[derive(serde::Deserialize)]
    struct Spec {
        #[serde(default)]
        annotations: Option<Annotations>,
    }
    /// Containers with the same of this share the shim of the sandbox that it names.
    #[derive(serde::Deserialize)]
    struct Annotations {
        #[serde(default, rename = "io.kubernetes.cri.sandbox-id")]
        group: Option<String>,
    }
    let path = bundle.join("config.json");
    let text = match coracle_oci::file::read(&path, MAX_SPEC) {
        Ok(text) => text,
        // A sandbox without containers of its own has no spec.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(os("read", &path)(error)),
    };
    let spec: Spec = serde_json::from_slice(&text)
        .map_err(|source| BootstrapError::Spec { path: path.clone(), source })?;
    let group = spec.annotations.and_then(|all| all.group);
    Ok(group.filter(|group| !group.is_empty()))
}

/// The path of a `unix://` address.
#[must_use]
pub fn socket_of(address: &str) -> Option<&str> {
    address.strip_prefix("unix://")
}

/// Binds a socket on which nobody listens yet; `None` if somebody does.
fn listen(socket: &Path) -> Result<Option<UnixListener>, BootstrapError> {
    match bind(socket) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound.map(Some).map_err(os("bind", socket)),
    }
    if UnixStream::connect(socket).is_ok() {
        return Ok(None);
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(os("remove the dead socket", socket)(error));
        }
        _ => {}
    }
    bind(socket).map(Some).map_err(os("bind", socket))
}

/// Locks the folder of the sockets, which the first shim of a machine makes.
fn lock_or_make(folder: &Path) -> Result<File, BootstrapError> {
    match lock(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        locked => return locked.map_err(os("lock", folder)),
    }
    let mut making = fs::DirBuilder::new();
    making.recursive(true).mode(0o711).create(folder).map_err(os("make folder", folder))?;
    lock(folder).map_err(os("lock", folder))
}

/// A lock on a folder; held until dropped. Only shims of this project take it.
fn lock(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    rustix::fs::flock(&folder, FlockOperation::LockExclusive)?;
    Ok(folder)
}

/// Binds with mode 0600 from the first moment. `start` has one thread, so its umask is its own.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(socket);
    rustix::process::umask(before);
    listener
}

/// Removes the socket of a server that is about to exit. As long as it listens, no start replaces
/// the socket, so the path is still its own.
///
/// # Errors
/// What the kernel said.
pub fn remove_own_socket(socket: &Path) -> io::Result<()> {
    let _lock = lock(socket.parent().unwrap_or(Path::new("/")))?;
    fs::remove_file(socket)
}

/// Removes a socket nobody listens on.
///
/// # Errors
/// What the kernel said.
pub fn remove_dead_socket(socket: &Path) -> io::Result<()> {
    let _lock = lock(socket.parent().unwrap_or(Path::new("/")))?;
    match UnixStream::connect(socket) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(socket),
        _ => Ok(()),
    }
}

/// Answers `-info` with a `RuntimeInfo` message.
///
/// # Errors
/// When the answer cannot be written.
pub fn info() -> Result<(), BootstrapError> {
    let version =
        RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..Default::default() };
    let features = Any {
        type_url: FEATURES_TYPE.into(),
        value: coracle_oci::spec::features().to_string().into_bytes(),
        ..Default::default()
    };
    let info = RuntimeInfo {
        name: RUNTIME_NAME.into(),
        version: Some(version).into(),
        features: Some(features).into(),
        ..Default::default()
    };
    let mut out = io::stdout().lock();
    let written = out.write_all(&info.write_to_bytes()?).and_then(|()| out.flush());
    written.map_err(os("write", Path::new("standard output")))
}

#[cfg(test)]
mod tests;
