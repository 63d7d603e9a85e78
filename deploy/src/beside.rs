//! Other programs of Coracle. They hold what this one should not load for each `coracle run`, and lie beside it.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

/// The shim's executable.
pub(crate) const SHIM: &str = "containerd-shim-wasm-v1";
/// The node's: daemon and installer.
pub(crate) const NODE: &str = "coracle-node";

/// A command for one of them, beside this executable or in `PATH`.
pub(crate) fn command(program: &str) -> Result<Command> {
    let path = find(program)
        .with_context(|| format!("{program} is neither beside coracle nor in PATH"))?;
    Ok(Command::new(path))
}

/// Becomes the command's process.
pub(crate) fn become_it(mut command: Command) -> Result<Infallible> {
    let error = command.exec();
    Err(error).with_context(|| format!("starting {}", command.get_program().display()))
}

/// Becomes the node's program with these arguments.
pub(crate) fn become_node(name: &str, arguments: &[OsString]) -> Result<Infallible> {
    let mut command = command(NODE)?;
    command.arg(name).args(arguments);
    become_it(command)
}

fn find(program: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|own| own.canonicalize().ok());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).map(|folder| folder.join(OsStr::new(program)));
    let mut places = own.map(|own| own.with_file_name(program)).into_iter().chain(folders);
    places.find(|place| place.is_file())
}
