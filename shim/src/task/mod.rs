//! A container's processes: the first one, which is the container ([`Task`]), and further ones ([`Exec`]).
//!
//! [`Process`] is either, for the calls that both have.

mod error;
mod exec;
mod execs;
mod init;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::TaskError;
pub use exec::{Exec, ExecFacts, Household};
pub use init::{Parts, Task};

use crate::exit::ExitStatus;
use crate::request::{Kill, TaskId};

/// What a task is, for containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The guest is parked; its program has not started.
    Created,
    /// The program runs.
    Running,
    /// Its processes are told to stop for a while.
    Pausing,
    /// They have stopped.
    Paused,
    /// The guest has ended.
    Stopped,
}

/// What State answers.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// What the task is.
    pub status: Status,
    /// How it ended, when it did.
    pub exit: Option<ExitStatus>,
}

/// What never changes about a task.
#[derive(Debug)]
pub struct Facts {
    /// The container.
    pub id: TaskId,
    /// Its bundle folder.
    pub bundle: PathBuf,
    /// The guest's pid, also after its end.
    pub pid: u32,
    /// The standard streams as containerd named them.
    pub streams: [String; 3],
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether others outside of the container are in its pid namespace, so that the kernel ends none of its
    /// processes with the first.
    pub shares_pids: bool,
}

/// A process that a call names.
pub enum Process {
    /// The container's first.
    Init(Arc<Task>),
    /// A further one, of this container.
    Exec(Arc<Task>, Arc<Exec>),
}

impl Process {
    /// Start: returns the pid.
    ///
    /// # Errors
    /// See [`Task::start`] and [`Exec::start`].
    pub async fn start(&self) -> Result<u32, TaskError> {
        match self {
            Self::Init(task) => task.start().await,
            Self::Exec(task, exec) => exec.start(task).await,
        }
    }

    /// Wait.
    pub async fn wait(&self) -> ExitStatus {
        match self {
            Self::Init(task) => task.wait().await,
            Self::Exec(_, exec) => exec.wait().await,
        }
    }

    /// Kill.
    ///
    /// # Errors
    /// When there is nobody to kill.
    pub fn kill(&self, kill: Kill) -> Result<(), TaskError> {
        match self {
            Self::Init(task) => task.kill(kill),
            Self::Exec(_, exec) => exec.kill(kill.signal),
        }
    }

    /// ResizePty: columns and rows; without a terminal there is nothing to do.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn resize(&self, size: (u16, u16)) -> Result<(), TaskError> {
        match self {
            Self::Init(task) => task.resize(size),
            Self::Exec(_, exec) => exec.resize(size),
        }
    }

    /// CloseIO of standard input.
    pub fn close_input(&self) {
        match self {
            Self::Init(task) => task.close_input(),
            Self::Exec(_, exec) => exec.close_input(),
        }
    }
}
