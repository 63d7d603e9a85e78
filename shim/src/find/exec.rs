//! What a further process of a container runs: a file of the container as it is now, volumes included, or
//! else a built-in tool.
//!
//! Files are looked up below the container's root in its own mount namespace, step by step and without
//! magic links (see `oci/src/image/rootfs.rs`). Messages are worded as runc words them, since Docker takes
//! its exit codes 126 and 127 from the words.

use std::os::fd::OwnedFd;

use coracle_oci::digest::Digest;
use coracle_oci::image::{self, EntryFault, Entrypoint, Format, Module, ModuleBytes};
use coracle_oci::spec::Process;

use super::{Finder, Found};
use crate::request::RootfsMount;
use crate::task::TaskError;
use crate::toolbox;

/// There is nothing to execute.
#[derive(Debug, thiserror::Error)]
pub enum ExecFault {
    /// A name that no folder of `PATH` has.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotInPath(String),
    /// A path at which nothing is.
    #[error("exec: {0:?}: stat {0}: no such file or directory")]
    NoSuchFile(String),
    /// Something is there that cannot be executed.
    #[error("exec: {name:?}: {fault}")]
    NoProgram {
        /// What was to be executed.
        name: String,
        /// What it is instead.
        fault: EntryFault,
    },
}

impl ExecFault {
    /// Whether nothing was found, in contrast to something that is no program.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NotInPath(_) | Self::NoSuchFile(_))
    }
}

/// The toolbox, if it has the command of a name that no file of the container answers to.
fn builtin(name: &str) -> Option<Module> {
    let bytes = toolbox::answers_to(name).then_some(toolbox::MODULE)?;
    Some(Module {
        bytes: ModuleBytes::Memory(bytes.to_vec()),
        digest: Digest::of(bytes),
        format: Format::Wasm,
        entry: Entrypoint::parse(name),
        origin: "the built-in toolbox".to_owned(),
    })
}

impl Finder {
    /// Finds what `process` runs in the container whose root this is, open in its mount namespace. `mounts`
    /// are those of its root file system. The container's annotations do not count: they are about its first
    /// program.
    ///
    /// # Errors
    /// [`TaskError::Exec`] when there is nothing to execute; what else keeps the code from being found.
    pub fn exec(
        &self,
        process: &Process,
        root: OwnedFd,
        mounts: &[RootfsMount],
    ) -> Result<Found, TaskError> {
        let located = match image::locate_running(process, root) {
            Ok(located) => located,
            Err(fault) if fault.is_linux_program() => return self.linux(fault),
            Err(fault) => return self.without_module(process, fault),
        };
        let (source, entry) = self.code(None, mounts, (located, None))?;
        Ok(Found::Wasm(source, entry))
    }

    /// A Linux program: its process looks for it once more, as the user that it is to be.
    fn linux(&self, fault: EntryFault) -> Result<Found, TaskError> {
        if self.config.linux_programs {
            Ok(Found::Linux)
        } else {
            Err(TaskError::LinuxProgram(fault))
        }
    }

    fn without_module(&self, process: &Process, fault: EntryFault) -> Result<Found, TaskError> {
        let name = process.args.first().cloned().unwrap_or_default();
        if !matches!(fault, EntryFault::NotFound { .. } | EntryFault::Absent) {
            return Err(ExecFault::NoProgram { name, fault }.into());
        }
        match builtin(&name) {
            Some(module) => {
                let (source, _) = self.compile(module, None, None)?;
                Ok(Found::Toolbox(source))
            }
            None if name.contains('/') => Err(ExecFault::NoSuchFile(name).into()),
            None => Err(ExecFault::NotInPath(name).into()),
        }
    }
}
