//! `delete`: what containerd calls when a shim is gone, or never came up.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::{self, Message};

use crate::bootstrap;
use crate::cli::Flags;
use crate::compile;
use crate::exit::{self, ExitStatus};
use crate::guest::{self, GuestError};
use crate::response;

/// What could not be cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The bundle's folder is unknown.
    #[error("find the bundle: {0}")]
    Bundle(#[source] io::Error),
    /// The guest, its cgroup, its mounts or its state file.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The compiler's cgroup.
    #[error("remove the compiler's cgroup: {0}")]
    Worker(#[from] coracle_oci::CgroupError),
    /// The answer.
    #[error("write the answer: {0}")]
    Answer(#[source] io::Error),
    /// The answer.
    #[error("encode the answer: {0}")]
    Encode(#[from] protobuf::Error),
}

/// Kills what is left of the container, removes everything the shim made for it, and answers with
/// a `DeleteResponse` on standard output. Idempotent.
///
/// # Errors
/// The first thing that could not be removed; the others were tried nevertheless.
pub fn delete(flags: &Flags) -> Result<(), CleanupError> {
    let bundle = match &flags.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().map_err(CleanupError::Bundle)?,
    };
    let remains = guest::cleanup_bundle(&bundle, flags.id.as_str());
    remove_dead_socket(&bundle);
    let worker = compile::worker_group(&flags.id, &bundle);
    let worker = compile::remove_left_behind(&worker);
    let remains = remains?;
    worker?;
    let exit = ExitStatus::now(exit::by_signal(libc::SIGKILL));
    let answer = response::deleted(remains.pid.unwrap_or_default(), exit).write_to_bytes()?;
    let mut out = io::stdout().lock();
    out.write_all(&answer).and_then(|()| out.flush()).map_err(CleanupError::Answer)
}

/// Removes the socket of the shim that is gone. One that answers serves the rest of its pod.
fn remove_dead_socket(bundle: &Path) {
    let Ok(address) = std::fs::read_to_string(bundle.join(bootstrap::ADDRESS_FILE)) else { return };
    let Some(socket) = bootstrap::socket_of(address.trim()).map(PathBuf::from) else { return };
    if let Err(error) = bootstrap::remove_dead_socket(&socket) {
        // containerd logs what `delete` writes here as a warning.
        eprintln!("remove socket {}: {error}", socket.display());
    }
}
