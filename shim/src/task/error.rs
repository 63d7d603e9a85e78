//! What a call on a task can fail with.

use coracle_oci::image::EntryFault;
use coracle_oci::{ImageError, SpecError};

use crate::compile::CompileError;
use crate::config::ConfigError;
use crate::find::ExecFault;
use crate::group::GroupError;
use crate::guest::GuestError;
use crate::io::StdioError;
use crate::mounts::MountError;
use crate::request::{ExecId, RequestError, TaskId};
use crate::update::UpdateError;

/// What a call on a task can fail with; `response.rs` chooses the status code.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No such container here.
    #[error("container {0} is not known to this shim")]
    NotFound(TaskId),
    /// The id is taken.
    #[error("container {0} already has a task")]
    AlreadyExists(TaskId),
    /// The process has ended, so there is nothing to signal.
    #[error("the process of container {0} has already finished")]
    Finished(TaskId),
    /// Not in this state.
    #[error("cannot {act} container {id}: it is {status}")]
    Refused {
        /// The container.
        id: TaskId,
        /// What was asked for.
        act: &'static str,
        /// What the task is.
        status: &'static str,
    },
    /// No such further process.
    #[error("container {0} has no process {1}")]
    NoExec(TaskId, ExecId),
    /// The id of a further process is taken.
    #[error("container {0} already has a process {1}")]
    ExecExists(TaskId, ExecId),
    /// A further process has ended, so there is nothing to signal.
    #[error("process {1} of container {0} has already finished")]
    ExecFinished(TaskId, ExecId),
    /// Not in this state of a further process.
    #[error("cannot {act} process {exec} of container {id}: {status}")]
    ExecRefused {
        /// The container.
        id: TaskId,
        /// The process.
        exec: ExecId,
        /// What was asked for.
        act: &'static str,
        /// What is in the way.
        status: &'static str,
    },
    /// A further process cannot be executed. Docker and people know these words from runc.
    #[error("OCI runtime exec failed: exec failed: unable to start container process: {0}")]
    ExecFailed(Box<TaskError>),
    /// Nothing to execute.
    #[error(transparent)]
    Exec(#[from] ExecFault),
    /// The call and the spec disagree about a terminal.
    #[error(
        "the call {} a terminal, and the spec {}: both must say the same",
        if *.call { "asks for" } else { "asks for no" },
        if *.call { "does not" } else { "does" }
    )]
    Terminal {
        /// Whether the call asks for one.
        call: bool,
    },
    /// Killed while Start was at work.
    #[error("container {0} was ended before its program started")]
    EndedBeforeStart(TaskId),
    /// The shim is about to exit.
    #[error("the shim is shutting down and takes no new container")]
    ShuttingDown,
    /// A call that this shim does not have.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A message that makes no sense.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Runtime options.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `config.json`.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The module.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The module is not in the root file system, and containerd cannot be asked for layers.
    #[error("{image}; wasm layers were not looked for: {content}")]
    NoModule {
        /// What the root file system gave.
        image: ImageError,
        /// Why the content store was not asked.
        content: String,
    },
    /// A Linux program where none may run.
    #[error(
        "{0}; Linux programs do not run here: the runtime option LinuxPrograms = true lets them"
    )]
    LinuxProgram(EntryFault),
    /// The root file system.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The standard streams.
    #[error(transparent)]
    Stdio(#[from] StdioError),
    /// The compilation.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The guest process.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The control group.
    #[error("cannot {act} container {id}: {source}")]
    Group {
        /// The container.
        id: TaskId,
        /// What was asked for.
        act: &'static str,
        /// Why it is not done.
        source: Box<GroupError>,
    },
    /// The new limits.
    #[error(transparent)]
    Update(#[from] Box<UpdateError>),
    /// A defect of the shim itself.
    #[error("the shim failed to {0}")]
    Broken(&'static str),
}
