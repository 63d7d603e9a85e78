//! Wire to domain: what a message may say is decided here, and nothing past it checks again.

mod stdio;

use std::fmt;
use std::path::{Component, Path, PathBuf};

use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use coracle_oci::spec::{self, Process};
pub use stdio::{Logger, StdioPlan, Stream};

use crate::task::TaskError;

use crate::sandbox::PodFiles;

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

/// The id of a further process of a container, of the same form as a [`TaskId`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExecId(TaskId);

impl ExecId {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// [`RequestError::ExecId`].
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        let bad = |_| RequestError::ExecId(text.chars().take(MAX_ID).collect());
        TaskId::parse(text).map(Self).map_err(bad)
    }

    /// The process that a call means; `None` is the container's first.
    ///
    /// # Errors
    /// As for [`ExecId::parse`].
    pub fn parse_optional(text: &str) -> Result<Option<Self>, RequestError> {
        if text.is_empty() { Ok(None) } else { Self::parse(text).map(Some) }
    }

    /// The id as containerd writes it.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
    /// What it shares with its pod; the shim knows, not the message.
    pub pod: PodFiles,
}

/// An Exec call.
#[derive(Debug, Clone)]
pub struct Exec {
    /// The container.
    pub task: TaskId,
    /// The process.
    pub id: ExecId,
    /// What it is, with its terminal as the call says.
    pub process: Process,
    /// Its standard streams.
    pub stdio: StdioPlan,
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
    #[error(
        "{name} {text:?} is neither an absolute path nor a fifo://, file:// or, for both outputs, a \
         binary:// URL"
    )]
    Stream {
        /// `stdin`, `stdout` or `stderr`.
        name: &'static str,
        /// What was asked for.
        text: String,
    },
    /// Something containerd may ask for and this shim does not have.
    #[error("{0}")]
    Unsupported(&'static str),
    /// No id for a further process.
    #[error("{0:?} is no id of a process: use letters, digits, '.', '_' and '-', at most 76")]
    ExecId(String),
    /// An Exec call that says not what to execute.
    #[error("the call names no process to execute: send an OCI process")]
    NoProcess,
}

/// Said when a task is to be restored from a checkpoint.
const NO_CHECKPOINT: &str = "checkpoints are not supported: create the task without one";
impl TryFrom<api::CreateTaskRequest> for Create {
    type Error = RequestError;

    fn try_from(wire: api::CreateTaskRequest) -> Result<Self, RequestError> {
        let id = TaskId::parse(&wire.id)?;
        let bundle = absolute(&wire.bundle).ok_or(RequestError::Bundle(wire.bundle))?;
        if !wire.checkpoint.is_empty() || !wire.parent_checkpoint.is_empty() {
            return Err(RequestError::Unsupported(NO_CHECKPOINT));
        }
        let stdio = StdioPlan::parse([wire.stdin, wire.stdout, wire.stderr], wire.terminal)?;
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
            pod: PodFiles::default(),
        })
    }
}

impl TryFrom<api::ExecProcessRequest> for Exec {
    type Error = TaskError;

    fn try_from(wire: api::ExecProcessRequest) -> Result<Self, TaskError> {
        let task = TaskId::parse(&wire.id).map_err(RequestError::from)?;
        let id = ExecId::parse(&wire.exec_id)?;
        let stdio = StdioPlan::parse([wire.stdin, wire.stdout, wire.stderr], wire.terminal)?;
        let described = wire.spec.into_option().ok_or(RequestError::NoProcess)?;
        let process = spec::process(&described.value)?;
        let process = Process { terminal: wire.terminal, ..process };
        Ok(Self { task, id, process, stdio })
    }
}

impl TryFrom<&api::KillRequest> for Kill {
    type Error = RequestError;

    fn try_from(wire: &api::KillRequest) -> Result<Self, RequestError> {
        Ok(Self { signal: wire.signal.try_into()?, all: wire.all })
    }
}

/// An absolute path without `..` and NUL that the kernel takes.
pub(crate) fn absolute(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let plain = path.components().all(|part| part != Component::ParentDir);
    (path.is_absolute() && plain && !text.contains('\0') && text.len() < MAX_PATH)
        .then(|| path.to_owned())
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
        assert!(Create::try_from(tty).unwrap().stdio.terminal);
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
    fn exec_is_checked_whole() {
        let wire = |id: &str, process: &str| api::ExecProcessRequest {
            id: "c".into(),
            exec_id: id.into(),
            terminal: true,
            spec: Some(Any { value: process.into(), ..Default::default() }).into(),
            ..Default::default()
        };
        let good = r#"{"args":["/x"],"cwd":"/","user":{"uid":1,"gid":2},"terminal":false}"#;
        let exec = Exec::try_from(wire("e", good)).unwrap();
        assert_eq!((exec.task.as_str(), exec.id.as_str()), ("c", "e"));
        assert!(exec.process.terminal, "the call decides about the terminal");
        assert_eq!(exec.process.user.uid, 1);
        for (id, process, word) in [
            ("", good, "no id of a process"),
            ("../x", good, "../x"),
            ("e", "{", "to execute"),
            ("e", r#"{"args":[],"cwd":"/","user":{"uid":0,"gid":0}}"#, "process.args"),
            ("e", r#"{"args":["x"],"cwd":"rel","user":{"uid":0,"gid":0}}"#, "process.cwd"),
            ("e", r#"{"args":["x"],"cwd":"/","user":{"uid":4294967296,"gid":0}}"#, "4294967296"),
        ] {
            let error = Exec::try_from(wire(id, process)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let empty = api::ExecProcessRequest { spec: None.into(), ..wire("e", good) };
        let error = Exec::try_from(empty).unwrap_err().to_string();
        assert!(error.contains("no process to execute"), "{error}");
        assert_eq!(ExecId::parse_optional(""), Ok(None));
    }
}
