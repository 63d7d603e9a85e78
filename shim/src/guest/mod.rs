//! The guest process: one container, seen from the shim.
//!
//! [`Guest::spawn`] makes a process in the namespaces and the cgroup of the spec and has it build its
//! own file system view. The process then parks: it has its final pid, its namespaces can be entered
//! and bind-mounted, but nothing of the image runs yet. [`Guest::start`] lets it go. A guest never
//! outlives the shim: the kernel kills it when the shim dies, and [`cleanup_bundle`] removes what a
//! killed shim leaves behind.
//!
//! Reading order: `plan` (what the two halves say to each other), `spawn` (the shim's half), `runner`
//! (the guest's half: `mounts`, `devices`, `pty`, `identity`, then `program` or `native`). `exec` makes
//! further processes of a container.

mod cage;
pub(crate) mod cgroups;
mod channel;
mod cleanup;
mod confine;
mod copy_up;
mod device_rules;
mod devices;
mod early;
mod error;
mod exec;
mod filter;
pub(crate) mod foreign;
mod hooks;
mod identity;
mod lifecycle;
mod limit;
mod mounts;
mod namespaces;
mod native;
mod observe;
mod oom;
mod path;
mod pause;
mod plan;
mod procfs;
mod program;
pub(crate) mod pty;
mod runner;
mod seccomp;
mod settings;
mod signals;
mod spawn;
mod state;
mod stop;
mod sys;
mod termination;
mod toolbox;
mod translate;
mod trap;
mod wait;

use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_oci::image::Entrypoint;
use coracle_oci::spec::Workload;

pub use cleanup::{Remains, cleanup_bundle};
pub use error::GuestError;
pub use exec::{Entrance, ExecRequest};
pub use lifecycle::Guest;
pub(crate) use oom::OomWatch;
pub use runner::runner_main;
pub use settings::initialize;
pub(crate) use sys::close_from as close_on_exec_from;
pub use trap::Trap;
pub(crate) use wait::Child;
pub use wait::{Exit, WaitStatus};

/// Everything that [`Guest::spawn`] needs to make one container process.
#[derive(Debug)]
pub struct SpawnRequest<'a> {
    /// The container's id, as containerd names it; the shim has validated it.
    pub id: &'a str,
    /// The bundle folder, absolute. The guest's state file is written here.
    pub bundle: &'a Path,
    /// The parsed `config.json`. Its rootfs is already mounted.
    pub workload: &'a Workload,
    /// The three standard streams.
    pub stdio: Stdio,
    /// What the process becomes once it is set up.
    pub runner: Runner,
}

/// The standard streams of a guest; an absent stream is `/dev/null`.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Read by the guest.
    pub stdin: Option<OwnedFd>,
    /// Written by the guest.
    pub stdout: Option<OwnedFd>,
    /// Written by the guest; trap reports go here.
    pub stderr: Option<OwnedFd>,
}

/// What a guest process becomes once it is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runner {
    /// A WebAssembly program, whose code arrives by [`Guest::provide_code`].
    Wasm {
        /// The program's file and the export to call (`_start` when none is named).
        entry: Entrypoint,
    },
    /// A Linux program of the root file system: the first argument of the spec's process.
    Linux,
    /// The built-in toolbox, by its own code and with what only that may import; see
    /// [`crate::toolbox`].
    Toolbox,
    /// The built-in sleeper that holds a pod's namespaces open.
    Pause,
}

/// A program's code.
#[derive(Debug)]
pub struct Code {
    /// The code image.
    pub image: OwnedFd,
    /// The socket of the compiler that makes the rest of it while the program runs; `None` if the
    /// image is complete. See [`coracle_engine::abi::lazy`].
    pub compiler: Option<OwnedFd>,
}

impl From<OwnedFd> for Code {
    /// A complete image.
    fn from(image: OwnedFd) -> Self {
        Self { image, compiler: None }
    }
}

/// The name of the sub-command of the shim's binary that calls [`runner_main`].
pub const SUBCOMMAND: &str = "guest";
