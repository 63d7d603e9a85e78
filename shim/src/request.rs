//! Wire to domain: what a message may say is decided here, and nothing past it checks again.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

/// Longest container id containerd makes or accepts.
const MAX_ID: usize = 76;
/// Longest path the kernel takes, with its NUL (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// A container id: ASCII letters, digits and `.`, `_`, `-`, beginning with a letter or digit, at
/// most 76 bytes. It can therefore be a file name and never leaves a folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskId(String);

/// Why a text is no [`TaskId`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidId {
    /// Nothing there.
    #[error("the container id is missing")]
    Empty,
    /// More than 76 bytes.
    #[error("a container id of {0} bytes is too long: 76 is the limit")]
    TooLong(usize),
    /// A character outside the alphabet, or a first one that is no letter or digit.
    #[error("{0:?} is no container id: use letters, digits, '.', '_' and '-'")]
    Alphabet(String),
}

impl TaskId {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// See [`InvalidId`].
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match text.as_bytes() {
            [] => Err(InvalidId::Empty),
            bytes if bytes.len() > MAX_ID => Err(InvalidId::TooLong(bytes.len())),
            [first, rest @ ..]
                if first.is_ascii_alphanumeric() && rest.iter().all(|&byte| allowed(byte)) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidId::Alphabet(text.to_owned())),
        }
    }

    /// The id as containerd writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A signal number the kernel delivers, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// SIGKILL.
    pub const KILL: Self = Self(libc::SIGKILL);

    /// The number for the kernel.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Whether a process that set no handler dies of it (`signal(7)`).
    pub fn ends_by_default(self) -> bool {
        !matches!(
            self.0,
            libc::SIGCHLD
                | libc::SIGCONT
                | libc::SIGURG
                | libc::SIGWINCH
                | libc::SIGSTOP
                | libc::SIGTSTP
                | libc::SIGTTIN
                | libc::SIGTTOU
        )
    }
}

impl TryFrom<u32> for Signal {
    type Error = RequestError;

    fn try_from(number: u32) -> Result<Self, RequestError> {
        match i32::try_from(number) {
            Ok(signal @ 1..=64) => Ok(Self(signal)),
            _ => Err(RequestError::Signal(number)),
        }
    }
}

/// One mount that containerd wants made on the root file system's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootfsMount {
    /// File system type, such as `overlay` or `bind`.
    pub kind: String,
    /// Device or folder.
    pub source: String,
    /// Options as in `mount(8)`, flags and data mixed.
    pub options: Vec<String>,
}

/// Where one standard stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// Nowhere: `/dev/null`.
    Null,
    /// A FIFO that a client has at its other end, or an existing file.
    Path(PathBuf),
    /// A log file to append to, made when missing (`file://`).
    LogFile(PathBuf),
}

/// The three streams of a task, with the texts they came as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdioPlan {
    /// Standard input.
    pub stdin: Stream,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
    /// The three as containerd wrote them; State and the create event repeat them.
    pub texts: [String; 3],
}

/// A Create call.
#[derive(Debug, Clone)]
pub struct Create {
    /// The container.
    pub id: TaskId,
    /// Its bundle folder, absolute.
    pub bundle: PathBuf,
    /// Mounts to make on `bundle/rootfs`, in this order.
    pub mounts: Vec<RootfsMount>,
    /// Its standard streams.
    pub stdio: StdioPlan,
    /// Runtime options, undecoded; `config.rs` reads them.
    pub options: Option<Any>,
}

/// A Kill call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// What to send.
    pub signal: Signal,
    /// To every process of the container instead of its first.
    pub all: bool,
}

/// What a message may not say.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// No container id.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A bundle that is no absolute, plain path.
    #[error("bundle {0:?} is no absolute path without '..'")]
    Bundle(String),
    /// A signal that does not exist.
    #[error("signal {0} does not exist: use 1 to 64")]
    Signal(u32),
    /// A stream that is neither a path nor a known URL.
    #[error("{name} {text:?} is neither an absolute path nor a fifo:// or file:// URL")]
    Stream {
        /// `stdin`, `stdout` or `stderr`.
        name: &'static str,
        /// What was asked for.
        text: String,
    },
    /// Something containerd may ask for and this shim does not have.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A process added by Exec; there are none.
    #[error("container {id} has no process {exec:?}: exec is not supported")]
    NoSuchExec {
        /// The container.
        id: TaskId,
        /// The process asked for.
        exec: String,
    },
}

/// Said when a terminal is asked for.
pub const NO_TERMINAL: &str =
    "terminals are not supported: run the container without -t (-i alone works)";
/// Said when a task is to be restored from a checkpoint.
const NO_CHECKPOINT: &str = "checkpoints are not supported: create the task without one";
/// Said when a logging program is asked for.
const NO_LOG_BINARY: &str =
    "binary:// loggers are not supported: use a fifo or a file:// URL for the streams";

impl TryFrom<api::CreateTaskRequest> for Create {
    type Error = RequestError;

    fn try_from(wire: api::CreateTaskRequest) -> Result<Self, RequestError> {
        let id = TaskId::parse(&wire.id)?;
        let bundle = absolute(&wire.bundle).ok_or(RequestError::Bundle(wire.bundle))?;
        if wire.terminal {
            return Err(RequestError::Unsupported(NO_TERMINAL));
        }
        if !wire.checkpoint.is_empty() || !wire.parent_checkpoint.is_empty() {
            return Err(RequestError::Unsupported(NO_CHECKPOINT));
        }
        let stdio = StdioPlan {
            stdin: stream("stdin", &wire.stdin)?,
            stdout: stream("stdout", &wire.stdout)?,
            stderr: stream("stderr", &wire.stderr)?,
            texts: [wire.stdin, wire.stdout, wire.stderr],
        };
        let mounts = wire.rootfs.into_iter().map(|m| RootfsMount {
            kind: m.type_,
            source: m.source,
            options: m.options,
        });
        Ok(Self {
            id,
            bundle,
            mounts: mounts.collect(),
            stdio,
            options: wire.options.into_option(),
        })
    }
}

impl TryFrom<&api::KillRequest> for Kill {
    type Error = RequestError;

    fn try_from(wire: &api::KillRequest) -> Result<Self, RequestError> {
        Ok(Self { signal: wire.signal.try_into()?, all: wire.all })
    }
}

/// The container of a call that may also name an exec process.
///
/// # Errors
/// Bad ids, and any exec process, since none exists.
pub fn init_process(id: &str, exec: &str) -> Result<TaskId, RequestError> {
    let id = TaskId::parse(id)?;
    if exec.is_empty() {
        return Ok(id);
    }
    Err(RequestError::NoSuchExec { id, exec: exec.to_owned() })
}

/// An absolute path without `..` and NUL that the kernel takes.
fn absolute(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let plain = path.components().all(|part| part != Component::ParentDir);
    (path.is_absolute() && plain && !text.contains('\0') && text.len() < MAX_PATH)
        .then(|| path.to_owned())
}

fn stream(name: &'static str, text: &str) -> Result<Stream, RequestError> {
    let refuse = || RequestError::Stream { name, text: text.to_owned() };
    let (scheme, path) = match text.split_once("://") {
        None if text.is_empty() => return Ok(Stream::Null),
        None => ("fifo", text),
        // Queries carry parameters of loggers, which a file has none of.
        Some((scheme, rest)) => (scheme, rest.split('?').next().unwrap_or_default()),
    };
    match scheme {
        "fifo" => absolute(path).map(Stream::Path).ok_or_else(refuse),
        "file" if name != "stdin" => absolute(path).map(Stream::LogFile).ok_or_else(refuse),
        "binary" | "binary-v2" => Err(RequestError::Unsupported(NO_LOG_BINARY)),
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_a_folder() {
        for good in ["a", "0", "web-1_x.2", &"f".repeat(76)] {
            assert_eq!(TaskId::parse(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(10_000);
        for bad in ["", ".", "..", "-a", "a/b", "a\0b", "ü", "a b", "../x", &long] {
            assert!(TaskId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn signals_exist() {
        for good in [1, 9, 15, 34, 64] {
            assert_eq!(Signal::try_from(good).unwrap().number(), good as i32);
        }
        for bad in [0, 65, 1000, u32::MAX] {
            assert_eq!(Signal::try_from(bad), Err(RequestError::Signal(bad)));
        }
        assert!(Signal::KILL.ends_by_default());
        assert!(!Signal::try_from(libc::SIGWINCH as u32).unwrap().ends_by_default());
    }

    #[test]
    fn streams_by_scheme() {
        assert_eq!(stream("stdin", ""), Ok(Stream::Null));
        assert_eq!(stream("stdout", "/run/f"), Ok(Stream::Path("/run/f".into())));
        assert_eq!(stream("stdout", "fifo:///run/f"), Ok(Stream::Path("/run/f".into())));
        assert_eq!(stream("stdout", "file:///l?a=b"), Ok(Stream::LogFile("/l".into())));
        assert!(matches!(stream("stderr", "binary:///b"), Err(RequestError::Unsupported(_))));
        for bad in ["relative", "file://x", "http:///x", "/a/../b", "file:///a/../b"] {
            assert!(matches!(stream("stdout", bad), Err(RequestError::Stream { .. })), "{bad}");
        }
        assert!(stream("stdin", "file:///x").is_err());
    }

    #[test]
    fn create_is_checked_whole() {
        let good = || api::CreateTaskRequest {
            id: "c".into(),
            bundle: "/run/b".into(),
            stdin: "/f/in".into(),
            ..Default::default()
        };
        let create = Create::try_from(good()).unwrap();
        assert_eq!(create.bundle, Path::new("/run/b"));
        assert_eq!(create.stdio.texts[0], "/f/in");
        assert!(create.options.is_none());

        let mut tty = good();
        tty.terminal = true;
        assert_eq!(Create::try_from(tty).unwrap_err(), RequestError::Unsupported(NO_TERMINAL));
        for bundle in ["", "rel", "/a/../b", "/a\0"] {
            let mut bad = good();
            bad.bundle = bundle.into();
            assert!(matches!(Create::try_from(bad), Err(RequestError::Bundle(_))), "{bundle:?}");
        }
        let mut restored = good();
        restored.checkpoint = "x".into();
        assert!(matches!(Create::try_from(restored), Err(RequestError::Unsupported(_))));
    }

    #[test]
    fn there_are_no_exec_processes() {
        assert_eq!(init_process("c", "").unwrap().as_str(), "c");
        assert!(matches!(init_process("c", "sh"), Err(RequestError::NoSuchExec { .. })));
    }
}
